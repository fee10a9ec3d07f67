"""A classifier with many labels. Letters: m documents, N features, D labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse
import torch

from widehead.data import RowExamples
from widehead.data.documents import is_pair
from widehead.data.memory import is_matrix, is_table
from widehead.data.sparse import CSR
from widehead.errors import DataError, check_whole
from widehead.estimators.base import Estimator
from widehead.estimators.calibration import Calibration
from widehead.estimators.names import kind_of, padded
from widehead.jobs.judging import Given, RankingTest, best_classes
from widehead.jobs.multilabel import Multilabel as Job
from widehead.runs import Run
from widehead.targets import on_device

_SCORES = 1 << 24  # numbers in a block of scores of all labels
_PAIRS = 1 << 27  # pairs of a document and a label that probabilities are calibrated on
_FEW = 20  # documents below which none is held out
_FIRST = 64  # labels of a document that are looked at first


class MultiLabel(Estimator):
    """What `widehead train multilabel` learns, from data in memory; a tenth of it is held out, for probabilities.

    Documents X are texts, or an (m, N) matrix of features (scipy, numpy, a DataFrame of numbers). Labels Y are an
    (m, D) matrix of zeros and ones, sparse or dense, a list of labels for each document, or a single label for each.

    The option ``holdout`` is 0.1 unless it is given; with 0 all documents train, as by default on the command line. Of
    fewer than 20 documents none is held out, unless it is given, and probabilities are those of the training documents.

    >>> texts = ["ships at sea", "storm at sea", "cats sleep", "dogs sleep"] * 10
    >>> labels = [["water"], ["water", "weather"], ["pets"], ["pets"]] * 10
    >>> model = MultiLabel(width=4).fit(texts, labels)
    >>> model.predict(["a storm and ships"], 2)[0].tolist()
    [['water', 'weather']]
    """

    job = Job.name
    holdout: float | None
    feature_names_in_: np.ndarray
    _form: str  # of Y: "single", "lists", "sparse" or "dense"
    _calibration: Calibration | None
    _defaults: ClassVar = {"holdout": 0.1}

    def fit(self, X: Any, Y: Any) -> Self:
        """Learn which documents have which labels.

        Raises:
            DataError: the data are not what they should be. ValueError: an option does not fit.
        """
        Y, columns = _labels(Y), _columns(X)
        (kind, form), count = _kind_and_form(Y), Y.shape[0] if is_matrix(Y) else len(Y)
        few = count < _FEW and self.holdout == self._defaults["holdout"]
        known = {"kind": kind, "form": form, "columns": columns}
        self._train((_documents(X), Y), known, **({"holdout": 0.0} if few else {}))
        return self

    def evaluate(self, test: Any, at: tuple[int, ...] | None = None) -> dict[str, float]:
        """Metrics on held-out documents, a file or a pair (X, Y), as `Run.evaluate` gives them."""
        self._fitted()
        return super().evaluate((self._features(test[0]), _labels(test[1])) if is_pair(test) else test, at)

    @property
    def classes_(self) -> np.ndarray:
        """(D,) what the labels are called, in the order of the columns; sorted if each document has a single label."""
        return self._names.array[self._order()]

    def predict(self, X: Any, k: int | None = None) -> Any:
        """The labels of documents.

        Args:
            X: documents.
            k: how many of the best labels; None: those that are likelier than not.

        Returns:
            With k: (m, k) labels as the data call them, best first, and their (m, k) float64 scores, padded as
            `Recommender.recommend` pads. Without: labels as Y had them, (m, D) zeros and ones (sparse or dense), a list
            of labels for each document, or (m,) single labels, each the best.

        Raises:
            DataError: the documents are not what they should be. ValueError: k is below 1; without k also as
                `predict_proba`, unless labels are single.
        """
        given = self._given(X)
        if k is not None:
            check_whole("k", k)
            ids, scores = self._best(given, k)
            return self._names.of(ids), scores
        if self._form == "single":
            ids = self._best(given, 1)[0][:, 0]
            return self._names.of(np.where(ids < 0, int(np.argmax(self._frequencies)), ids))
        ids = self._likely(given)
        if self._form == "lists":
            return [self._names.of(row[row >= 0]).tolist() for row in ids]
        rows, places = np.nonzero(ids >= 0)
        ones = (np.ones(len(rows), dtype=np.int64), (rows, ids[rows, places]))
        found = scipy.sparse.csr_matrix(ones, shape=(len(ids), self._job.sizes["classes"]))
        return found if self._form == "sparse" else found.toarray()

    def predict_proba(self, X: Any) -> np.ndarray:
        """(m, D) the probability of each label, in the order of `classes_`.

        If each document has a single label, the loss or head defines probabilities and no neighbours have a say, these
        are they. Else a score is calibrated by isotonic regression on the held-out documents: the probability is how
        often labels of such a score were true there (see `widehead.estimators.calibration`); of single labels the D of
        a document are then made to sum to 1. Of a document of which nothing is known, it is how often the label is in
        the training data.

        All D of all m documents are in memory at once; for the best alone there is `predict`.

        Raises:
            DataError: the documents are not what they should be.
            ValueError: nothing was held out (``holdout=0``, or the command line's run) and it is needed.
        """
        given = self._given(X)
        blocks = [self._probabilities(*block) for block in scored(self._fitted(), given)]
        found = np.concatenate(blocks) if blocks else np.empty((0, self._job.sizes["classes"]))
        return found[:, self._order()]

    def score(self, X: Any, Y: Any) -> float:
        """Precision@1: how often the best label is one of a document's, its accuracy if labels are single.

        Raises:
            DataError: the data are not what they should be, or no document has a label.
        """
        run = self._fitted()
        test = run.job.read_test((self._features(X), _labels(Y)))
        return test.metrics(run.network, ["precision@1"], None, run.config.seed)["precision@1"]

    @property
    def _job(self) -> Job:
        job = self._fitted().job
        assert isinstance(job, Job)
        return job

    @property
    def _frequencies(self) -> np.ndarray:
        """(D,) in which part of the training documents each label is: its probability if nothing else is known."""
        return self._job.counts / max(1, self._job.num_documents)

    def _order(self) -> np.ndarray:
        """(D,) the columns in the order of `classes_`, which scikit-learn wants sorted."""
        array = self._names.array
        return np.argsort(array, kind="stable") if self._form == "single" else np.arange(len(array))

    def _given(self, X: Any) -> Given:
        return self._job.given(self._features(X))

    def _features(self, X: Any) -> Any:
        """Documents as the job takes them; DataError if a table has not the columns of the training documents."""
        expected, found = self._learnt.get("columns"), _columns(X)
        if expected is not None and found is not None and found != expected:
            wrong = next((pair for pair in zip(expected, found, strict=False) if pair[0] != pair[1]), None)
            place = f"{len(found):,} columns" if wrong is None else f"{wrong[1]!r} in the place of {wrong[0]!r}"
            raise DataError(
                f"Expected the {len(expected):,} columns of the training documents, in their order. Found {place}."
            )
        return _documents(X)

    def _best(self, given: Given, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(m, k) ids and scores of the best, −1 and −inf in places that no label takes."""
        found = list(best_classes(self._fitted().network, given, min(k, self._job.sizes["classes"])))
        ids, scores = (padded([pair[n] for pair in found], k, fill) for n, fill in enumerate((-1, -np.inf)))
        return ids.astype(np.int64), scores

    def _likely(self, given: Given) -> np.ndarray:
        """(m, n) ids of the labels that are likelier than not, −1 in places that no label takes."""
        calibration, classes = self._calibrated(), self._job.sizes["classes"]
        k = min(_FIRST, classes)
        while True:
            ids, scores = self._best(given, k)
            likely = calibration(scores) >= 0.5
            if k == classes or not likely[:, -1:].any():
                break
            k = min(4 * k, classes)
        common = np.flatnonzero(self._frequencies >= 0.5)  # of documents of which nothing is known
        found = np.pad(np.where(likely, ids, -1), ((0, 0), (0, max(0, len(common) - k))), constant_values=-1)
        found[(ids < 0).all(axis=1), : len(common)] = common
        return found

    def _probabilities(self, scores: torch.Tensor, hidden: torch.Tensor, known: np.ndarray) -> np.ndarray:
        single = self._form == "single"
        run = self._fitted()
        if single and run.config.has_probabilities and run.network.beside is None:
            every = torch.arange(scores.shape[1], device=scores.device).expand(len(hidden), -1)
            with torch.no_grad():
                found = run.network.head.log_prob(hidden, every).double().exp().cpu().numpy()
        else:
            found = self._calibrated()(scores.double().cpu().numpy())
        found[~known] = self._frequencies
        return found / found.sum(axis=1, keepdims=True) if single else found

    def _calibrated(self) -> Calibration:
        if self._calibration is None:
            raise ValueError(
                "Expected a run with documents held out, which probabilities are calibrated on. Found none; do "
                "MultiLabel(holdout=0.1).fit(X, Y); or MultiLabel(neighbours=0), if labels are single and the loss or "
                "head defines probabilities."
            )
        if self._learnt["step"] != (step := self._fitted().step):
            raise ValueError(
                f"Expected the weights of step {self._learnt['step']:,}, which probabilities are calibrated for. Found "
                f"those of step {step:,}: the run was trained further, or its best checkpoint is used; call fit."
            )
        return self._calibration

    def _learn(self, run: Run) -> dict[str, Any]:
        calibration = _calibration(run, few=self.holdout == self._defaults["holdout"])
        return {"calibration": None if calibration is None else calibration.to_dict(), "step": run.step}

    def _take(self, run: Run, learnt: Mapping[str, Any]) -> None:
        super()._take(run, learnt)
        schema, known = self._job.schema, learnt.get("calibration")
        self._form = learnt.get("form") or ("sparse" if schema.keys is None else "lists")
        self._calibration = None if known is None else Calibration.from_dict(known)
        vars(self).pop("feature_names_in_", None)
        if schema.text is None:
            self.n_features_in_ = schema.num_features
            if learnt.get("columns") is not None:
                self.feature_names_in_ = np.array(learnt["columns"], dtype=object)

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags

        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags(multi_label=True)
        tags.target_tags.required = tags.target_tags.multi_output = True
        return tags


def _documents(X: Any) -> Any:
    """Documents as the job takes them: tables and lists of numbers are matrices."""
    if scipy.sparse.issparse(X):
        return X
    numbers = isinstance(X, list | tuple) and len(X) and isinstance(X[0], list | tuple)
    return np.asarray(X) if numbers or hasattr(X, "__array__") else X


def _columns(X: Any) -> list[str] | None:
    """What the columns of a table of features are called, if they are called by texts."""
    names = list(X.columns) if is_table(X) else []
    return names if names and all(isinstance(name, str) for name in names) else None


def _labels(Y: Any) -> Any:
    """Labels as the job takes them: those of one column are single ones."""
    if Y is None:
        raise DataError("MultiLabel.fit requires y to be passed, but the target y is None; do fit(X, Y).")
    if scipy.sparse.issparse(Y):
        return Y
    Y = np.asarray(Y) if hasattr(Y, "__array__") else list(Y)
    return Y.ravel() if isinstance(Y, np.ndarray) and Y.ndim == 2 and Y.shape[1] == 1 else Y


def _kind_and_form(Y: Any) -> tuple[str, str]:
    """What labels are, as `Names` takes it, and what Y is: "single", "lists", "sparse" or "dense"."""
    if is_matrix(Y):
        return "int", "sparse" if scipy.sparse.issparse(Y) else "dense"
    if any(isinstance(row, str) or not hasattr(row, "__iter__") for row in Y):
        return kind_of(Y), "single"
    return kind_of(label for row in Y for label in row), "lists"


def _calibration(run: Run, *, few: bool) -> Calibration | None:
    """From the scores of the documents held out, or if there are none but ``few`` documents, of those that trained.

    None if there are neither, or they have no label that is known.
    """
    test, trained = run.data.test, run.data.examples
    if isinstance(test, RankingTest):
        true, bare = test.examples.targets, test.bare
        inputs = scipy.sparse.vstack([test.examples.inputs, bare], format="csr")
        true = scipy.sparse.vstack([true, scipy.sparse.csr_matrix((bare.shape[0], true.shape[1]))], format="csr")
    elif few and isinstance(trained, RowExamples):
        inputs, true = trained.inputs, trained.targets
    else:
        return None
    most = max(_FIRST, _PAIRS // true.shape[1])
    chosen = np.sort(np.random.default_rng(run.config.seed).permutation(inputs.shape[0])[:most])
    held = _Held(run, Given.bags([], inputs[chosen]), true[chosen])
    positives = np.concatenate([found for _, found in held] or [np.empty(0)])
    return Calibration.fit(positives, (scores for scores, _ in held)) if len(positives) else None


class _Held:
    """Of held-out documents of which something is known: (n, D) scores and those of true labels, some at a time."""

    def __init__(self, run: Run, given: Given, true: CSR) -> None:
        self.run, self.given, self.true = run, given, true

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        start = 0
        for scores, _, known in scored(self.run, self.given):
            rows, columns = self.true[start : start + len(scores)].nonzero()
            kept, found = known[rows], scores.double().cpu().numpy()
            yield found[known], found[rows[kept], columns[kept]]
            start += len(scores)


def scored(run: Run, given: Given) -> Iterator[tuple[torch.Tensor, torch.Tensor, np.ndarray]]:
    """(n, D) scores, (n, d) hidden layers and (n,) whether something is known, of some documents at a time."""
    network, head = run.network, run.network.head
    for inputs, known in given.batches(max(1, _SCORES // head.num_classes)):
        with torch.no_grad():
            hidden = network.hidden(on_device(inputs, head.device))
            scores = head.scores(hidden)
            if network.beside is not None:
                scores = network.beside.all_scores(scores, inputs)
            yield scores, hidden, (known & (hidden != 0).any(dim=1).cpu()).numpy()
