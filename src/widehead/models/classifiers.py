"""Linear classifiers of many labels, each from the documents that it is to tell apart.

Letters: n documents, N features, D labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch

from widehead.arithmetic.library import library

_COST = 0.3  # of a margin below 1, beside the squares of the weights
_PASSES, _CLOSE = 20, 0.1  # over the examples, at most; how steep the dual may still be
_SMALLEST = 0.05  # a weight that is left out tells little of a row of length 1
_AT_A_TIME = 1 << 22  # weights that a call of C has room for
_ROWS = 32  # whose margins are found at a time
_LABELS = 1 << 12  # whose examples are counted at a time


@dataclass(frozen=True)
class LinearClassifiers:
    """Margins w·x + b of labels: above 0 for documents that have the label, for the best of them above 1.

    Each label's (w, b) minimises ‖(w, b)‖²/2 + C Σ max(0, 1 − y(w·x + b))² over its examples (a linear support vector
    machine with a squared hinge, as in Prabhu et al. 2018, "Parabel", section 4).

    Attributes:
        by_feature: (N, D) scipy CSR, float32, the weights w as margins are made of them. biases: (D,) float32.
    """

    by_feature: Any
    biases: np.ndarray

    @property
    def weights(self) -> Any:
        """(D, N) scipy CSR, float32."""
        return self.by_feature.T.tocsr()

    @classmethod
    def of(
        cls,
        features: Any,
        labels: Any,
        others: Any,
        *,
        cost: float = _COST,
        close: float = _CLOSE,
        passes: int = _PASSES,
    ) -> LinearClassifiers:
        """From all documents that have a label, and those that should not be taken for such.

        Args:
            features: (n, N) scipy CSR, float32, rows of length 1 or 0.
            labels: (n, D) scipy CSR of ones.
            others: the same, of labels to tell a document from; those that it has do not count.
            cost: C. close: where descent ends: the steepest slope of the dual in a pass. passes: over all, at most.
        """
        rows = features.tocsr()
        signs = _signs(labels, others)
        if (found := library()) is None:
            weights, biases = _by_scipy(rows, signs, cost)
        else:
            weights, biases = _compiled(found, rows, signs, cost, close, passes)
        return cls(weights.T.tocsr(), biases)

    def margins(self, features: Any, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(p,) float64 of pairs of a row of (m, N) ``features``, scipy CSR in float32, and a label; rows rise."""
        shape = features.shape[0], self.by_feature.shape[1]
        for name, part, end in zip(("rows", "labels"), (rows, labels), shape, strict=True):
            if not 0 <= part.min(initial=0) <= part.max(initial=0) <= max(0, end - 1) or (len(part) and not end):
                raise ValueError(f"Expected {name} from 0 to {end - 1}. Found {part.min()} to {part.max()}.")
        if (found := library()) is None:
            return self._margins_by_scipy(features, rows, labels)
        if features.shape[1] != len(self.by_feature.indptr) - 1 or features.indices.max(initial=0) >= features.shape[1]:
            raise ValueError(f"Expected {self.by_feature.shape[0]} features. Found {features.shape[1]}.")
        threads, width, made = torch.get_num_threads(), len(self.biases), np.empty(len(rows))
        pairs = [np.ascontiguousarray(part, dtype=np.int64) for part in (rows, labels)]
        given = (*_csr_parts(features), *pairs, *_csr_parts(self.by_feature), self.biases)
        work = np.empty(threads * width, dtype=np.float32)
        found.widehead_margins(threads, len(rows), width, *map(_pointer, (*given, work, made)))
        return made

    def _margins_by_scipy(self, features: Any, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The obvious twin: out of the products of some rows with all labels' weights, as they take much memory."""
        made: np.ndarray = self.biases[labels].astype(np.float64)
        for first in range(0, features.shape[0], _ROWS):
            here = np.flatnonzero((rows >= first) & (rows < first + _ROWS))
            products = (features[first : first + _ROWS] @ self.by_feature).toarray()
            made[here] += products[rows[here] - first, labels[here]]
        return made


def _csr_parts(matrix: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets, columns and values of a scipy CSR as C takes them."""
    kinds = zip((matrix.indptr, matrix.indices, matrix.data), (np.int64, np.int32, np.float32), strict=True)
    offsets, columns, values = (np.ascontiguousarray(part, dtype=kind) for part, kind in kinds)
    return offsets, columns, values


def _signs(labels: Any, others: Any) -> Any:
    """(n, D) scipy CSC, int8: 1 of labels that a document has, -1 of others that it is told from."""
    twice = labels.astype(np.int8)
    twice.data *= 2
    signs = (others.astype(np.int8, copy=False) + twice).tocsc()
    np.copyto(signs.data, np.where(signs.data > 1, np.int8(1), np.int8(-1)))
    return signs


def _entries_of(lengths: np.ndarray, offsets: np.ndarray, examples: np.ndarray) -> np.ndarray:
    """(D,) how many entries the examples of each label have, in rows of (n,) ``lengths``; some labels at a time."""
    found = np.zeros(len(offsets) - 1, dtype=np.int64)
    for first in range(0, len(found), _LABELS):
        edges = offsets[first : first + _LABELS + 1]
        before = np.append(0, np.cumsum(lengths[examples[edges[0] : edges[-1]]]))
        found[first : first + _LABELS] = np.diff(before[edges - edges[0]])
    return found


def _compiled(found: Any, rows: Any, signs: Any, cost: float, close: float, passes: int) -> tuple[Any, np.ndarray]:
    """Weights and biases by C: some labels at a time, as many as there is room for whatever they weigh."""
    width, num_labels = rows.shape[1], signs.shape[1]
    offsets, examples = (
        part.astype(type_, copy=False) for part, type_ in ((signs.indptr, np.int64), (signs.indices, np.int32))
    )
    row_offsets, columns, values = rows.indptr.astype(np.int64), rows.indices.astype(np.int32, copy=False), rows.data
    squares = np.asarray(rows.multiply(rows).sum(axis=1), dtype=np.float64).ravel()
    room = np.minimum(_entries_of(np.diff(row_offsets), offsets, examples), width)  # of different features, at most
    threads, most = torch.get_num_threads(), int(np.diff(offsets).max(initial=0))
    work = np.zeros(threads * (width + 2 * most))
    biases, counts = np.zeros(num_labels, dtype=np.float32), np.zeros(num_labels, dtype=np.int64)
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    first, after = 0, np.cumsum(room)
    while first < num_labels:
        before = int(after[first] - room[first])
        stop = max(first + 1, int(np.searchsorted(after, before + _AT_A_TIME, side="right")))
        places = after[first:stop] - room[first:stop] - before
        size = int(after[stop - 1]) - before
        out = np.empty(size, dtype=np.int32), np.empty(size, dtype=np.float32)
        given = (row_offsets, columns, values, squares, offsets, examples, signs.data)
        found.widehead_classifiers(
            threads, first, stop - first, width, most, *map(_pointer, given), cost, passes, close, _SMALLEST,
            *map(_pointer, (places, work, *out, counts[first:stop], biases[first:stop])),
        )  # fmt: skip
        kept = np.repeat(places - np.cumsum(counts[first:stop]) + counts[first:stop], counts[first:stop])
        kept += np.arange(len(kept))
        parts.append((out[0][kept], out[1][kept]))
        first = stop
    taken = [np.concatenate(part) for part in zip(*parts, strict=True)] if parts else [columns[:0], values[:0]]
    weights = scipy.sparse.csr_matrix((taken[1], taken[0], np.append(0, np.cumsum(counts))), shape=(num_labels, width))
    weights.sort_indices()
    return weights, biases


def _pointer(array: np.ndarray) -> int:
    assert array.flags.c_contiguous
    return array.ctypes.data


def _by_scipy(rows: Any, signs: Any, cost: float) -> tuple[Any, np.ndarray]:
    """The obvious twin: each label's minimum, found by L-BFGS over the features of its examples."""
    made, biases = [], np.zeros(signs.shape[1], dtype=np.float32)
    for label in range(signs.shape[1]):
        own = slice(signs.indptr[label], signs.indptr[label + 1])
        examples = rows[signs.indices[own]].astype(np.float64)
        used, places = np.unique(examples.indices, return_inverse=True)
        x = scipy.sparse.csr_matrix((examples.data, places, examples.indptr), shape=(examples.shape[0], len(used)))
        w, biases[label] = _minimum(x, signs.data[own].astype(np.float64), cost)
        kept = np.abs(w) > _SMALLEST
        made.append((used[kept], w[kept].astype(np.float32)))
    offsets = np.append(0, np.cumsum([len(columns) for columns, _ in made]))
    columns, values = (np.concatenate(part) for part in zip(*made, strict=True))
    return scipy.sparse.csr_matrix((values, columns, offsets), shape=(signs.shape[1], rows.shape[1])), biases


def _minimum(x: Any, signs: np.ndarray, cost: float) -> tuple[np.ndarray, float]:
    """(w, b) of one label from its examples (p, features) and their signs (p,)."""
    from scipy.optimize import minimize  # 25 MB, which C does without

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        missing = np.maximum(0.0, 1.0 - signs * (x @ point[:-1] + point[-1]))
        pull = -2.0 * cost * signs * missing
        value = 0.5 * point @ point + cost * missing @ missing
        return value, point + np.append(x.T @ pull, pull.sum())

    found = minimize(
        objective, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options={"ftol": 0.0, "gtol": 1e-6}
    ).x
    return found[:-1], float(found[-1])
