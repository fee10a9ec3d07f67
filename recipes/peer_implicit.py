"""Alternating least squares of the package implicit; runs in an environment of its own (see peers.py).

    python peer_implicit.py TRAIN.npz TOP.npy --seconds 60 [--factors 256] [--regularization 0.01] …

TRAIN.npz is a scipy matrix of users × items. TOP.npy receives the (users, 20) best items that a user does not have.
Iterations go on until the seconds are over, or their number is reached. The last line says how it went, as JSON.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import scipy.sparse
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import bm25_weight
from threadpoolctl import threadpool_limits

SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("top")
    parser.add_argument("--factors", type=int, default=256)
    parser.add_argument("--regularization", type=float, default=0.01)
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--bm25", action="store_true", help="weigh the pairs by BM25, with implicit's defaults")
    parser.add_argument("--iterations", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    train = scipy.sparse.load_npz(options.train).tocsr()
    weighted = bm25_weight(train).tocsr() if options.bm25 else train
    with threadpool_limits(1, "blas"):  # as implicit asks for: its own threads call BLAS
        model = AlternatingLeastSquares(
            options.factors,
            regularization=options.regularization,
            alpha=options.alpha,
            iterations=1,
            num_threads=options.threads,
            random_state=SEED,
        )
        begin, iterations = time.perf_counter(), 0
        while iterations < options.iterations and (not iterations or time.perf_counter() - begin < options.seconds):
            model.fit(weighted, show_progress=False)  # goes on from the factors that are there
            iterations += 1
    seconds = time.perf_counter() - begin
    np.save(options.top, best(model, train))
    print(json.dumps({"iterations": iterations, "seconds": round(seconds, 1)}))


def best(model: AlternatingLeastSquares, train: scipy.sparse.csr_matrix, k: int = 20) -> np.ndarray:
    """(users, k) items, best first."""
    users = np.arange(train.shape[0])
    ids = [model.recommend(rows, train[rows], k, filter_already_liked_items=True)[0] for rows in chunks(users, 1024)]
    return np.concatenate(ids).astype(np.int64)


def chunks(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


if __name__ == "__main__":
    main()
