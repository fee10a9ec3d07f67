"""Word embeddings on 100 MB of Wikipedia, judged by word similarity and analogies, beside gensim and an SVD.

    python recipes/word_embeddings.py TEXT SIMILARITY_FOLDER [--peers gensim-1,gensim-3,svd] [--out runs/words]

TEXT is plain text, which may be compressed; SIMILARITY_FOLDER holds simlex999.txt, wordsim353.tsv and men3k.txt, two
words and a number a line, and questions-words.txt, Google's analogies. Seconds are wall time without reading and
cutting the text, which is done once for all and timed by itself; counting is included.

Similarity is Spearman's ρ, given for all pairs, and for the half of them that no setting was chosen on ("rest").
Analogies are the share of right answers (3CosAdd, all words are candidates) among those whose words are known, and by
kind: syntactic ones are the sections whose names begin with "gram". The job has its own width, the peers have 256.
Appends a line for each model to recipes/results/word-embeddings.jsonl.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import python_of, run
from provenance import append

from widehead.data import END, UNKNOWN, Vocabulary, count_words, encode, read_analogies, read_word_pairs
from widehead.jobs import configure
from widehead.metrics import analogy_answers, rank_correlation
from widehead.runs import Run

SETS = {"simlex": "simlex999.txt", "wordsim": "wordsim353.tsv", "men": "men3k.txt"}
WIDTH, MINIMUM_COUNT, HALVES_SEED = 256, 5, 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("similarity", type=Path)
    parser.add_argument("--peers", default="", help="gensim-EPOCHS, svd; commas between them")
    parser.add_argument("--out", default="runs/words")
    options = parser.parse_args()
    begin = time.perf_counter()
    words, ids = tokens(options.text)
    reading = time.perf_counter() - begin
    ours(options, reading)
    with tempfile.TemporaryDirectory() as folder:
        for peer in filter(None, options.peers.split(",")):
            a_peer(peer, words, ids, Path(folder), options.similarity)


def tokens(text: Path) -> tuple[Vocabulary, np.ndarray]:
    """The vocabulary and the text's ids, as the job reads them."""
    words = Vocabulary.from_counts(count_words(text), minimum=MINIMUM_COUNT, unknown=UNKNOWN, keep=[END])
    return words, encode(text, words)


def ours(options: argparse.Namespace, reading: float) -> None:
    """Train with the defaults of the job; the rows of the output layer are the embeddings."""
    begin = time.perf_counter()
    outcome = Run.new(configure("word-embeddings", train=str(options.text), out=options.out)).train()
    seconds = time.perf_counter() - begin - reading
    trained: Any = Run.open(options.out)
    scores = judged(trained.job.words, trained.network.head.weight().numpy(), options.similarity)
    keep(
        {"model": "widehead", "seconds": seconds, "seconds_head": outcome.seconds, "seconds_reading": reading} | scores
    )


def a_peer(peer: str, words: Vocabulary, ids: np.ndarray, folder: Path, similarity: Path) -> None:
    """Run one other system on the same words; it leaves one file of vectors for each of its variants."""
    names, _, epochs = list(words), *peer.partition("-")[1:]
    np.save(folder / "ids.npy", ids[ids != words.unknown_id])
    (folder / "words.txt").write_text("\n".join(names), encoding="utf-8")
    given = [folder, words.id(END), WIDTH]
    if peer.startswith("gensim-"):
        done = run(python_of("gensim", "gensim==4.4.0"), "peer_gensim.py", *map(str, given), epochs)
    elif peer == "svd":
        python = python_of("scikit-learn", "scikit-learn==1.7.2")
        done = run(python, "peer_ppmi_svd.py", *map(str, given))
    else:
        raise SystemExit(f"--peers should name gensim-EPOCHS or svd. Found {peer}.")
    for variant in done["variants"]:
        scores = judged(words, np.load(folder / f"{variant}.npy"), similarity)
        keep({"model": variant, "seconds": done["seconds"]} | scores)


def judged(words: Vocabulary, vectors: np.ndarray, folder: Path) -> dict[str, float]:
    """All figures of vectors (D, d)."""
    return similarities(words, vectors, folder) | analogies(words, vectors, folder)


def similarities(words: Vocabulary, vectors: np.ndarray, folder: Path) -> dict[str, float]:
    """Spearman's ρ of cosines with people's judgements: over all pairs whose words are known, and over the rest."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    found: dict[str, float] = {}
    for name, file in SETS.items():
        pairs = [(a.lower(), b.lower(), score) for a, b, score in read_word_pairs(folder / file)]
        known = [(words.id(a), words.id(b), score) for a, b, score in pairs if a in words and b in words]
        first, second, scores = (np.array(column) for column in zip(*known, strict=True))
        both = torch.from_numpy((unit[first] * unit[second]).sum(axis=1)), torch.from_numpy(scores)
        rest = np.random.default_rng(HALVES_SEED).permutation(len(scores)) >= len(scores) // 2
        found[name] = rank_correlation(*both)
        found[f"{name}_rest"] = rank_correlation(*(part[torch.from_numpy(rest)] for part in both))
    return found


def analogies(words: Vocabulary, vectors: np.ndarray, folder: Path) -> dict[str, float]:
    """Shares of Google's analogies that are answered right: of all, of semantic and of syntactic ones."""
    asked: dict[str, list[list[int]]] = {"semantic": [], "syntactic": []}
    for section, lines in read_analogies(folder / "questions-words.txt").items():
        four = [[word.lower() for word in line] for line in lines]
        kind = "syntactic" if section.startswith("gram") else "semantic"
        asked[kind] += [words.ids(line).tolist() for line in four if all(word in words for word in line)]
    right: dict[str, torch.Tensor] = {}
    for kind, rows in asked.items():
        ids = torch.tensor(rows)
        left_out = torch.from_numpy(words.ids([END, UNKNOWN]))
        right[kind] = analogy_answers(torch.from_numpy(vectors), ids[:, :3], left_out) == ids[:, 3]
    right["analogies"] = torch.cat(list(right.values()))
    return {"analogies_asked": len(right["analogies"])} | {kind: float(r.double().mean()) for kind, r in right.items()}


def keep(figures: Mapping[str, Any]) -> None:
    """Print a record and append it to the results."""
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}
    print(json.dumps(append("word-embeddings", {"recipe": "word-embeddings", **rounded}), indent=2), flush=True)


if __name__ == "__main__":
    main()
