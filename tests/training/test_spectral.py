"""The start of word embeddings: positive eigenvalues against dense linear algebra, and what training makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from job_files import config_of

from widehead.data import CooccurrenceExamples
from widehead.training import load_run, train
from widehead.training.spectral import positive_eigenpairs
from widehead.training.words import WordEmbeddings


def _indefinite(size: int) -> tuple[np.ndarray, torch.Tensor]:
    """A symmetric matrix whose eigenvalues are ±size/1, ±size/2, …, not exactly symmetric as stored."""
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.standard_normal((size, size)))[0]
    values = np.array([(-1.0) ** i * size / (1 + i // 2) for i in range(size)])
    skew = rng.standard_normal((size, size))
    return (vectors * values) @ vectors.T + skew - skew.T, torch.from_numpy(np.sort(values)[::-1].copy())


@pytest.mark.parametrize(("size", "basis"), [(40, 50), (1200, 384)])  # dense, and in a Krylov space
def test_the_largest_positive_eigenvalues(size: int, basis: int) -> None:
    matrix, expected = _indefinite(size)
    values, vectors = positive_eigenpairs(scipy.sparse.csr_matrix(matrix.astype(np.float32)), 8, basis=basis, seed=0)
    torch.testing.assert_close(values, expected[:8].float(), rtol=1e-3, atol=0.0)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(8), rtol=0.0, atol=1e-3)
    symmetric = torch.from_numpy((matrix + matrix.T) / 2).float()
    assert float((symmetric @ vectors - vectors * values).norm() / values.norm()) < 1e-2


def test_missing_eigenvalues_are_zero() -> None:
    values, vectors = positive_eigenpairs(scipy.sparse.diags([3.0, -2.0, 0.0]).tocsr(), 5, basis=5, seed=0)
    assert values.tolist() == pytest.approx([3.0, 0.0, 0.0, 0.0, 0.0])
    assert vectors.shape == (3, 5)
    assert vectors[:, 1:].abs().sum() == 0.0
    assert vectors[:, 0].abs().tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)


def test_training_is_the_least_squares_fit_of_all_pairs(tmp_path: Path) -> None:
    config = config_of("word-embeddings", tmp_path, head_lr=1.0, encoder_lr=0.0, epochs=1, batch_size=22, width=4)
    train(config, quiet=True)
    run = load_run(config.out)
    examples = WordEmbeddings.read(config).examples
    assert isinstance(examples, CooccurrenceExamples)
    hidden = run.network.encoder.state_dict()["embeddings.weight"].double()
    wanted = torch.linalg.lstsq(hidden, torch.from_numpy(examples.matrix.toarray()).double()).solution.T
    torch.testing.assert_close(run.network.head.weight().double(), wanted, rtol=1e-4, atol=1e-5)
