"""Skip-gram with 5 negative samples by gensim: peer_gensim.py FOLDER END WIDTH EPOCHS.

FOLDER holds ids.npy and words.txt, and receives gensim-EPOCHS.npy (D, WIDTH). Runs in an environment of its own.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from gensim.models import Word2Vec


def main() -> None:
    folder, end, width, epochs = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    names = (folder / "words.txt").read_text(encoding="utf-8").split("\n")
    ids = np.load(folder / "ids.npy")
    table = np.array(names, dtype=object)
    sentences = [part[part != end] for part in np.split(ids, np.flatnonzero(ids == end) + 1)]
    sentences = [table[part].tolist() for part in sentences if len(part)]
    begin = time.perf_counter()
    model = Word2Vec(sentences, vector_size=width, window=5, min_count=5, sg=1, negative=5, epochs=epochs, workers=2)
    seconds = time.perf_counter() - begin
    vectors = np.zeros((len(names), width), dtype=np.float32)
    for i, name in enumerate(names):
        if name in model.wv:
            vectors[i] = model.wv[name]
    np.save(folder / f"gensim-{epochs}.npy", vectors)
    print(json.dumps({"seconds": seconds, "variants": [f"gensim-{epochs}"]}))


if __name__ == "__main__":
    main()
