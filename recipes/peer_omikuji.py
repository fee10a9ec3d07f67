"""Omikuji's Parabel (its own settings) or Bonsai: trains on XC text, writes the best classes of each test row.

python peer_omikuji.py TRAIN TEST PREDICTIONS THREADS K Parabel|Bonsai

Runs in the environment that multilabel.py makes for it, and prints one JSON object: its times in seconds. Training
includes reading, as omikuji does both in one call.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import omikuji
from peer_memory import peak_bytes


def main() -> None:
    train, test, predictions, threads, k, kind = sys.argv[1:]
    settings = omikuji.Model.default_hyper_param()
    if kind == "Bonsai":
        settings.cluster_balanced, settings.cluster_k, settings.max_depth = False, 100, 3
    begin, cpu = time.perf_counter(), time.process_time()
    model = omikuji.Model.train_on_data(train, settings, n_threads=int(threads))
    trained, cpu = time.perf_counter(), time.process_time() - cpu
    peak = peak_bytes()
    with Path(test).open(encoding="utf-8") as rows, Path(predictions).open("w", encoding="utf-8") as out:
        next(rows)
        for row in rows:
            pairs = (pair.split(":") for pair in row.split()[1:])
            found = model.predict([(int(i), float(v)) for i, v in pairs], top_k=int(k))
            out.write(json.dumps([label for label, _ in found]) + "\n")
    times = {"seconds": trained - begin, "cpu_seconds": cpu, "seconds_predicting": time.perf_counter() - trained}
    times["peak_bytes"] = peak
    print(json.dumps(times))


if __name__ == "__main__":
    main()
