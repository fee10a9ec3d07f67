"""Positive pointwise mutual information and a truncated SVD: peer_ppmi_svd.py FOLDER END WIDTH.

FOLDER holds ids.npy and words.txt, and receives svd.npy, with rows of UΣ^¼, and svd-h+w.npy, with the sums of those and
of the contexts' (Levy, Goldberg and Dagan 2015), each (D, WIDTH). Runs in an environment of its own.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from sklearn.utils.extmath import randomized_svd


def main() -> None:
    folder, end, width = Path(sys.argv[1]), *map(int, sys.argv[2:4])
    size = len((folder / "words.txt").read_text(encoding="utf-8").split("\n"))
    ids = np.load(folder / "ids.npy")
    begin = time.perf_counter()
    words = ids[ids != end]
    counts = sp.csr_matrix((size, size), dtype=np.float32)
    for k in range(1, 6):  # the weights that skip-gram's windows of random size have
        ones = np.full(len(words) - k, 1.2 - 0.2 * k, dtype=np.float32)
        counts += sp.coo_matrix((ones, (words[:-k], words[k:])), shape=counts.shape).tocsr()
    matrix = ppmi((counts + counts.T).tocsr())
    left, values, right = randomized_svd(matrix, width, n_iter=2, random_state=0)
    words_of, contexts_of = left * values**0.25, right.T * values**0.25
    seconds = time.perf_counter() - begin
    np.save(folder / "svd.npy", words_of)
    np.save(folder / "svd-h+w.npy", words_of + contexts_of)
    print(json.dumps({"seconds": seconds, "variants": ["svd", "svd-h+w"]}))


def ppmi(counts: sp.csr_matrix) -> sp.csr_matrix:
    """Positive pointwise mutual information with contexts' counts to the power of 0.75."""
    rows = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1e-12)
    columns = rows**0.75
    expected = np.repeat(rows, np.diff(counts.indptr)) * (columns / columns.sum())[counts.indices]
    counts.data = np.maximum(np.log(counts.data / expected), 0.0).astype(np.float32)
    counts.eliminate_zeros()
    return counts


if __name__ == "__main__":
    main()
