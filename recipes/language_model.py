"""Language model on Wikipedia, every word that occurs twice a class: output layers beside each other for equal minutes.

    python recipes/language_model.py TEXT [--minutes 3] [--heads spherical=exact,full,…] [--part 1.0] [--words 20000]
        [--context 9]

TEXT has a `<doc …>` line before each article. The last hundredth of the articles is the test part, the hundredth before
it is what the curves are measured on while training. Every head has the network of `widehead train language-model` with
the paper's nine words of context (or `--context`), trains from the same seed, in a process of its own, and is judged on
the same test words: perplexity by its own probabilities over all words (where it has any), and whether the next word is
its first guess, or among the first ten. Training alone is timed, not evaluations.

Prints a table, and writes recipes/results/language-model.jsonl and language-model.png (accuracy against minutes).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch
from provenance import commit

from widehead.bench.measure import hardware
from widehead.comparison import Result, compare, contenders
from widehead.data import open_text
from widehead.data.text import words_of
from widehead.options import TrainingConfig
from widehead.runs import Run

matplotlib.use("Agg")
from matplotlib import pyplot

RESULTS = Path(__file__).resolve().parent / "results"
HEADS = (
    "spherical=exact,taylor=exact,full,sampled,retrieved,hierarchical,adaptive,noise-contrastive,blackout,"
    "negative-sampling"
)
# Losses of the exact head; and negatives by rank, as word ids are sorted by frequency.
SETTINGS = [
    ("spherical", "loss", "spherical-softmax"),
    ("taylor", "loss", "taylor-softmax"),
    ("sampled", "sampler", "log-uniform"),
]
HELD_OUT = 0.01  # of the articles, for test and for validation each
PATHS = ("out", "train", "test")  # options that say nothing elsewhere
VALIDATION_WORDS = 4_000  # that each point of a curve is measured on
COLOURS = ("#0072b2", "#c55a00", "#00805c", "#a0508a", "#5b6b00", "#4a4a4a", "#b8860b", "#7a3b2e", "#3b6ea8", "#888888")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--heads", default=HEADS, help="names as for `widehead compare`")
    parser.add_argument("--minutes", type=float, default=3.0, help="of training for each head")
    parser.add_argument("--part", type=float, default=1.0, help="part of the training articles that is used")
    parser.add_argument("--words", type=int, default=20_000, help="of the test part that heads are judged on, about")
    parser.add_argument("--context", type=int, default=9, help="words before the one to predict; the paper's nine")
    given = parser.parse_args()
    heads = given.heads.split(",")
    names = [head.partition("=")[0] for head in heads]
    with tempfile.TemporaryDirectory() as folder:
        train, valid, test = cut(given.text, Path(folder), given.part, given.words)
        configs = contenders(
            "language-model",
            heads,
            [setting for setting in SETTINGS if setting[0] in names],
            Path(folder) / "runs",
            train=str(train),
            test=str(valid),
            minutes=given.minutes,
            context=given.context,
            minimum_count=2,
            checkpoint_every=f"{10.0 * given.minutes:f} minutes",  # at the end alone
        )
        results = compare(configs, Path(folder) / "runs", quiet=True, say=lambda line: print(line, flush=True))
        settings = {"recipe": "language-model", **vars(given), "text": given.text.name, "commit": commit()}
        settings |= hardware(torch.device("cpu"))
        records = [{**settings, **judged(result, configs[result.name], test)} for result in results]
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "language-model.jsonl").open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(record) + "\n" for record in records)
    plot(records)
    show(records)


def cut(text: Path, folder: Path, part: float, words: int) -> tuple[Path, Path, Path]:
    """Files of the training, validation and test articles; of the latter two, lines of each article."""
    articles: list[list[str]] = []
    with open_text(text) as lines:
        for line in lines:
            if line.startswith("<doc "):
                articles.append([])
            elif articles and line != "</doc>":
                articles[-1].append(line)
    held = max(1, round(HELD_OUT * len(articles)))
    if len(articles) < 4 * held:
        raise SystemExit(f"{text} should have at least four articles after <doc> lines. Found {len(articles)}.")
    training = articles[: -2 * held]
    parts = {
        "train": training[: max(1, round(part * len(training)))],
        "valid": spread(articles[-2 * held : -held], VALIDATION_WORDS),
        "test": spread(articles[-held:], words),
    }
    for name, chosen in parts.items():
        said = "\n".join(line for article in chosen for line in article) + "\n"
        (folder / f"{name}.txt").write_text(said, encoding="utf-8")
    print(", ".join(f"{name}: {len(chosen):,} articles" for name, chosen in parts.items()), flush=True)
    return folder / "train.txt", folder / "valid.txt", folder / "test.txt"


def spread(articles: list[list[str]], words: int) -> list[list[str]]:
    """From each article some lines, from its middle on, so that about so many words are left of all together."""
    share = math.ceil(words / len(articles))
    kept = []
    for article in articles:
        lines, found = [], 0
        for line in article[len(article) // 2 :]:
            if found >= share:
                break
            lines.append(line)
            found += len(words_of(line))
        kept.append(lines)
    return kept


def judged(result: Result, config: TrainingConfig, test: Path) -> dict[str, Any]:
    """All that is known of a contender, with its metrics on the test words."""
    record = {**dataclasses.asdict(result), "options": {k: v for k, v in vars(config).items() if k not in PATHS}}
    record |= {"test": {}, "classes": None, "seconds_an_epoch": None, "milliseconds_a_step": result.milliseconds_a_step}
    if result.status != "finished":
        return record
    run = Run.open(config.out)
    record["test"] = run.evaluate(test)
    record["classes"] = run.job.sizes["classes"]
    record["seconds_an_epoch"] = result.seconds / result.epochs
    print(f"{result.name}: test {record['test']}", flush=True)
    return record


def plot(records: Sequence[dict[str, Any]]) -> None:
    """Top-1 and top-10 accuracy on the validation words against minutes of training."""
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    for axis, k in zip(axes, (1, 10), strict=True):
        for record, colour in zip((r for r in records if r["curve"]), COLOURS * 2, strict=False):
            minutes = [point["seconds"] / 60.0 for point in record["curve"]]
            accuracy = [100.0 * point[f"recall@{k}"] for point in record["curve"]]
            width = 2.4 if record["head"] == "exact" else 1.3
            axis.plot(minutes, accuracy, color=colour, linewidth=width, label=record["name"])
        axis.set_xlabel("minutes of training")
        axis.set_ylabel(f"next word among the first {k}, %" if k > 1 else "next word is the first guess, %")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.2)
    axes[1].legend(frameon=False, fontsize=8, loc="center left")
    classes = max((record["classes"] or 0 for record in records), default=0)
    figure.suptitle(f"Language model, {classes:,} words, validation text")
    figure.savefig(RESULTS / "language-model.png", dpi=110)


def show(records: Sequence[dict[str, Any]]) -> None:
    """The table: one line a head, the most accurate first."""
    titles = ("perplexity", "top-1", "top-10", "steps", "ms a step", "epochs", "s an epoch", "peak MB")
    print(f"\n{'':18s}" + "".join(f"{title:>12s}" for title in titles))
    for record in sorted(records, key=lambda r: -r["test"].get("recall@10", 0.0)):
        if not record["test"]:
            print(f"{record['name']:18s}  {record['status']}")
            continue
        test, epochs = record["test"], record["epochs"]
        # An epoch that did not fit is told from the steps that did.
        epoch = f"{'~' if epochs < 1.0 else ''}{record['seconds_an_epoch']:.0f}"
        cells = (
            f"{test['perplexity']:.1f}" if math.isfinite(test.get("perplexity", math.nan)) else "-",
            f"{100.0 * test['recall@1']:.2f} %",
            f"{100.0 * test['recall@10']:.2f} %",
            f"{record['steps']:,}",
            f"{record['milliseconds_a_step']:.1f}",
            f"{epochs:.2f}",
            epoch,
            f"{record['peak_bytes'] / 1e6:.0f}" if record["peak_bytes"] else "-",
        )
        print(f"{record['name']:18s}" + "".join(f"{cell:>12s}" for cell in cells))


if __name__ == "__main__":
    main()
