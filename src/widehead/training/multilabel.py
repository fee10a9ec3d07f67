"""Multi-label classification: weighted features of a document in, labels out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from torch import nn

from widehead.data import LabelSchema, MultiLabel, RowExamples, open_text, read_multilabel
from widehead.data.sparse import CSR
from widehead.errors import CheckpointError
from widehead.models import WideNetwork
from widehead.training.config import TrainingConfig
from widehead.training.folder import RunFolder
from widehead.training.jobs import Job, JobData, Prediction, bag_encoder
from widehead.training.judging import RankingTest, ranked_rows

__all__ = ["Multilabel"]


class Multilabel(Job):
    """Features in, labels out.

    Args:
        schema: what the columns of features and labels are.
    """

    def __init__(self, schema: LabelSchema) -> None:
        self.schema = schema

    @property
    def sizes(self) -> Mapping[str, int]:
        return {"inputs": self.schema.num_features, "classes": self.schema.num_labels}

    @classmethod
    def read(cls, config: TrainingConfig) -> JobData:
        assert config.train is not None
        train = read_multilabel(config.train, labels_path=config.labels, minimum_documents=config.minimum_count)
        job = cls(train.schema)
        if config.test is not None:
            return JobData(job, RowExamples(train.features, train.labels), job.read_test(config.test))
        order = np.random.default_rng(config.seed).permutation(train.features.shape[0])
        held, kept = np.split(order, [round(config.holdout * len(order))])
        examples = RowExamples(train.features[np.sort(kept)], train.labels[np.sort(kept)])
        return JobData(job, examples, _test(train, np.sort(held)) if len(held) else None)

    def save(self, folder: RunFolder) -> None:
        text = json.dumps(self.schema.to_dict(), ensure_ascii=False)
        folder.keep("labels.json", lambda path: _write(path, text))

    @classmethod
    def load(cls, folder: RunFolder, config: TrainingConfig) -> Multilabel:
        path = folder.vocabulary_path("labels.json")
        try:
            return cls(LabelSchema.from_dict(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} should hold the labels of the run. Found: {error}.") from error

    def encoder(self, config: TrainingConfig) -> nn.Module:
        return bag_encoder(self.sizes["inputs"], config)

    def metric_names(self, at: tuple[int, ...]) -> list[str]:
        return [f"{kind}@{k}" for kind in ("precision", "ndcg") for k in at]

    def read_test(self, path: Path | str) -> RankingTest:
        test = read_multilabel(path, schema=self.schema)
        return _test(test, np.arange(test.features.shape[0]))

    def predict(self, network: WideNetwork, path: Path | str, k: int) -> Iterator[Prediction]:
        """For each document of a file, named by its number from 1, the best labels; of text, labels may be left out."""
        for row, classes, scores in ranked_rows(network, self._features(path), k, exclude_inputs=False):
            yield Prediction(str(row + 1), [self.schema.name(c) for c in classes], scores)

    def _features(self, path: Path | str) -> CSR:
        text = self.schema.text
        if text is None:
            return read_multilabel(path, schema=self.schema).features
        with open_text(path) as lines:
            return text.transform(line.partition("\t")[2] if "\t" in line else line for line in lines)


def _test(documents: MultiLabel, rows: np.ndarray) -> RankingTest:
    return RankingTest(
        documents.features[rows], documents.labels[rows], documents.unreachable[rows], exclude_inputs=False
    )


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
