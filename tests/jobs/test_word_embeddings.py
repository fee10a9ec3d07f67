"""What training makes of the start of word embeddings."""

from __future__ import annotations

from pathlib import Path

import torch
from support.job_files import config_of

from widehead.data import CooccurrenceExamples
from widehead.jobs.word_embeddings import WordEmbeddings
from widehead.runs import Run


def test_training_is_the_least_squares_fit_of_all_pairs(tmp_path: Path) -> None:
    config = config_of("word-embeddings", tmp_path, head_lr=1.0, encoder_lr=0.0, epochs=1, batch_size=22, width=4)
    Run.new(config).train(quiet=True)
    run = Run.open(config.out)
    examples = WordEmbeddings.read(config).examples
    assert isinstance(examples, CooccurrenceExamples)
    hidden = run.network.encoder.state_dict()["embeddings.weight"].double()
    wanted = torch.linalg.lstsq(hidden, torch.from_numpy(examples.matrix.toarray()).double()).solution.T
    torch.testing.assert_close(run.network.head.weight().double(), wanted, rtol=1e-4, atol=1e-5)
