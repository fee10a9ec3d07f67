"""The claims of docs/results.md: what was measured, how, and which stored rows say so. results.py writes them out."""

from __future__ import annotations

from results import Claim, Headline, median, value_of

from claims.exactness import (
    DRIFT,
    EVERY,
    HALF,
    HALVES,
    KILLS,
    MAPPED,
    PEAK,
    REACH,
    RUNS,
    SEQUENCES,
    SOAK,
    SPLIT,
    TRAFFIC,
    TWIN,
    worst,
)
from claims.minutes import NEXT_ITEM_HEADS, WIKIPEDIA_MINUTES, WIKITEXT_HEADS, WIKITEXT_MINUTES
from claims.quality import (
    BY_OPTIMISER_ITEMS,
    BY_OPTIMISER_WORDS,
    CITEULIKE,
    COMPARED,
    DEMO,
    EMBEDDINGS,
    EPINIONS,
    GENES,
    GOWALLA,
    HISTORIES,
    ILL,
    MILLION,
    NEXT_ITEM,
    PACKAGES,
    PHENOTYPES,
    SPLITS,
    TAGS,
    WIKIPEDIA,
    WIKITEXT,
    WORDNET,
    YSO,
)
from claims.speed import (
    BEFORE,
    CLASSES_10,
    DIRECT,
    FEW,
    GPT2,
    HEADS_ALONE,
    MANY,
    OPTIMISERS,
    PAPER_TABLE,
    PASS,
    READING,
    STEP,
    SWEEP,
    UPKEEP,
)

INTRODUCTION = (
    "# Results",
    "Every figure of the project stands here once: setting, command, figure, and where its raw result is. This page is "
    "made from the stored results by `python docs/results.py`, and a test holds it to them. What was tried on the way, "
    "failures included, is in the [log of benchmarks](log-benchmarks.md) and the [log of recipes](log-recipes.md).",
    "All of it was measured on CPUs of shared machines. **No figure comes from a GPU: none has run this library yet.** "
    "Ratios come from methods that took turns in one process, so they hold when the machine is busy; seconds do not. "
    "Lines of a file are counted from 1. Each figure is of one run unless the section says otherwise. 'With changes' "
    "after a commit: not all of the code had been committed.",
)

PARTS: dict[str, tuple[Claim, ...]] = {
    "Speed": (
        *(STEP, CLASSES_10, SWEEP, FEW, MANY, BEFORE, OPTIMISERS, DIRECT, HEADS_ALONE, PAPER_TABLE, UPKEEP, PASS),
        *(READING, GPT2),
    ),
    "Exactness": (TWIN, EVERY, SPLIT, DRIFT, SOAK),
    "Reliability of runs": (KILLS,),
    "Quality, beside other systems": (
        *(
            GOWALLA,
            EPINIONS,
            SPLITS,
            MILLION,
            COMPARED,
            DEMO,
            CITEULIKE,
            PHENOTYPES,
            WORDNET,
            GENES,
            PACKAGES,
            TAGS,
            YSO,
            EMBEDDINGS,
            NEXT_ITEM,
            HISTORIES,
            NEXT_ITEM_HEADS,
            WIKITEXT_HEADS,
            WIKITEXT_MINUTES,
            WIKIPEDIA_MINUTES,
            WIKITEXT,
            WIKIPEDIA,
        ),
        *(BY_OPTIMISER_WORDS, BY_OPTIMISER_ITEMS, ILL),
    ),
    "Memory": (MAPPED, REACH, HALVES, RUNS, SEQUENCES, TRAFFIC, PEAK, HALF),
}

HEADLINES = (
    Headline(
        "One step at 793,471 classes, times faster than dense PyTorch (median of six runs)",
        STEP,
        lambda rows: median(rows, "ratio_to_dense", ",.0f"),
    ),
    Headline(
        "W after 5,000 hostile steps in float32, relative error to a dense float64 twin, worst loss",
        TWIN,
        lambda rows: worst(rows, "float32", "of W"),
    ),
    Headline(
        "Recommender on gowalla, no options, recall@20 (tuned ALS is lower)",
        GOWALLA,
        lambda rows: next(format(row["recall@20"], ".3f") for row in rows if row["method"] == "widehead"),
    ),
    Headline(
        "**A loss:** WikiText-2 perplexity of the spherical softmax, in those of the full softmax",
        WIKITEXT,
        lambda rows: format(_perplexity(rows, "exact") / _perplexity(rows, "full"), ".2f"),
    ),
    Headline(
        "Differences from an uninterrupted run after 200 kills (SIGKILL)",
        KILLS,
        lambda rows: str(sum(len(row["differences"]) for row in rows)),
    ),
)


def _perplexity(rows: list[dict[str, object]], head: str) -> float:
    return float(next(value_of(row, "metrics.perplexity") for row in rows if row["head"] == head))
