"""Output layers on a language model: the same n-gram network, the same epochs, judged by the full softmax.

    python recipes/heads.py TRAIN TEST [--epochs 1] [--width 256] [--batch-size 256] [--heads full,retrieved,sampled]

Every head trains from the same seed, in a process of its own. Perplexities are over all classes, whatever a head
estimated in training. Prints a table with each head's perplexity and time a step beside those of the full softmax, and
writes recipes/results/heads-language-model.jsonl and .png.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import tempfile
from pathlib import Path

import torch
from provenance import commit

from widehead.bench.measure import hardware
from widehead.comparison import compare, contenders, verdict, write_comparison

RESULTS = Path(__file__).resolve().parent / "results"
HEADS = "full,retrieved,sampled,hierarchical,adaptive,exact"
# Negatives by rank, as word ids are sorted by frequency; and for the retrieved head somewhat less than a quarter of the
# classes, from where on it would compute all of them.
SETTINGS = [
    ("sampled", "negatives", 2000),
    ("sampled", "sampler", "log-uniform"),
    ("retrieved", "retrieved", 3000),
    ("retrieved", "tail", 5000),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--heads", default=HEADS)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=256)
    given = parser.parse_args()
    heads = given.heads.split(",")
    out = Path(tempfile.mkdtemp())
    configs = contenders(
        "language-model",
        heads,
        [setting for setting in SETTINGS if setting[0] in heads],
        out,
        train=str(given.train),
        test=str(given.test),
        tokens="whitespace",
        context=5,
        minimum_count=1,
        epochs=given.epochs,
        width=given.width,
        batch_size=given.batch_size,
    )
    results = compare(configs, out, say=lambda line: print(line, flush=True))
    write_comparison(out, configs, results)
    record = {"recipe": "heads", "commit": commit(), **hardware(torch.device("cpu")), **vars(given)}
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "heads-language-model.jsonl").open("w", encoding="utf-8") as lines:
        for result in results:
            line = {**record, "train": given.train.name, "test": given.test.name, **dataclasses.asdict(result)}
            lines.write(json.dumps(line) + "\n")
    shutil.move(out / "comparison.png", RESULTS / "heads-language-model.png")
    shutil.rmtree(out)
    full = next((result for result in results if result.name == "full"), None)
    print(f"\n{'head':14s} {'perplexity':>10s} {'ms a step':>10s}   beside the full softmax")
    for result in results:
        perplexity, step = result.metrics.get("perplexity", float("nan")), result.milliseconds_a_step or float("nan")
        beside = ""
        if full is not None and full.milliseconds_a_step:
            worse = 100.0 * (perplexity / full.metrics["perplexity"] - 1.0)
            beside = f"perplexity {worse:+.1f} %, time {step / full.milliseconds_a_step:.2f}"
        print(f"{result.name:14s} {perplexity:10.1f} {step:10.1f}   {beside}")
    print(verdict(results))


if __name__ == "__main__":
    main()
