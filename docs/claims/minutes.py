"""Claims about output layers beside each other for equal minutes."""

from __future__ import annotations

from results import Claim, Column, Table, value_of

_MINUTES = "recipes/results/equal-minutes.jsonl"

_STEPS = (Column("steps", "steps", 1, ",d"), Column("passes over the data", "epochs", 1, ".2f"))

_WORDS = (
    Column("encoder", "encoder"),
    Column("head", "head"),
    Column("perplexity", "metrics.perplexity", 1, ".1f"),
    Column("next word first", "metrics.recall@1", 100, ".1f", " %"),
    Column("among ten", "metrics.recall@10", 100, ".1f", " %"),
    *_STEPS,
)

_ITEMS = (
    Column("head", "head"),
    Column("recall@20", "metrics.recall@20", 100, ".1f", " %"),
    Column("MRR@20", "metrics.mrr@20", 100, ".1f", " %"),
    *_STEPS,
)

NEXT_ITEM_HEADS = Claim(
    "The next item: nine output layers for equal minutes",
    "diginetica (43,097 items) and Nowplaying (60,416); a GRU of 128 units with each output layer and the job's "
    "defaults for it, two minutes of one thread's CPU time each, without neighbours, on a busy machine; 10,000 test "
    "prefixes drawn at random (standard error of recall 0.5 %). Heads that have rows are tied to the embeddings, but "
    "for the exact one; it, adaptive and hierarchical have their own, which need more passes. The full softmax reads "
    "all items at every place. The job without a limit makes 9 passes over diginetica: "
    "see above. The same for 45 seconds, with larger steps, is in [the log](log-recipes.md).",
    "python recipes/equal_minutes.py next-item TRAIN TEST --minutes 2 --at-most 10000",
    (Table(_MINUTES, (Column("set", "set"), *_ITEMS), {"job": "next-item"}),),
    says=lambda rows: " ".join(
        f"On {name} {_order([row for row in rows if row['set'] == name], 'metrics.recall@20')}"
        for name in ("diginetica", "nowplaying")
    ),
)


def _order(rows: list[dict[str, object]], key: str) -> str:
    """The heads of these rows by a figure, the largest first."""
    order = sorted(rows, key=lambda row: -float(value_of(row, key)))
    return f"the best first: {', '.join(str(row['head']) for row in order)}."


WIKITEXT_HEADS = Claim(
    "Language model: WikiText-2, five output layers and two encoders for equal minutes",
    "D = 33,278, d = 256, one minute of one thread's CPU time each; perplexity of the first 500 lines of the test part "
    "over all words. The LSTM has the job's defaults. The n-gram network has a learning rate of 3e-3 (the default, "
    "1e-3, but for the exact head), which was better on validation text. The exact head's probabilities are those of "
    "the spherical softmax, another model. **The LSTM is ahead with sampled softmax, which is the default, and with "
    "retrieved softmax; with the others both are within 2 % of each other.** All of it is about the start, where steps "
    "count: no head has seen a third of the text.",
    "python recipes/equal_minutes.py language-model TRAIN TEST --minutes 1 --first 500 "
    "--heads sampled,full,retrieved,adaptive,exact",
    (Table(_MINUTES, _WORDS, {"job": "language-model", "minutes": 1.0}),),
)

WIKITEXT_MINUTES = Claim(
    "Language model: WikiText-2, an LSTM with sampled and with adaptive softmax for five minutes",
    "D = 33,278, d = 256, the job's defaults, five minutes of one thread's CPU time each; perplexity of the first 500 "
    "lines of the validation text over all words. The sampled softmax, the default, is tied to the embeddings; the "
    "adaptive one has embeddings of its own. **The default loses here.** It stays the default, as adaptive softmax is "
    "behind it on Wikipedia with 131,337 words (below), and its steps cost more with every class: with a million, 30 "
    "times as much as those of the sampled softmax (recipes/LOG.md, 2026-11-28). Take `--head adaptive` for a "
    "vocabulary of some tens of thousands of words.",
    "python recipes/equal_minutes.py language-model TRAIN VALIDATION --encoders lstm --minutes 5 --first 500 "
    "--heads sampled,adaptive",
    (Table(_MINUTES, _WORDS, {"job": "language-model", "set": "wikitext-2", "file": "valid.txt.gz", "minutes": 5.0}),),
)

WIKIPEDIA_MINUTES = Claim(
    "Language model: Wikipedia, five output layers and two encoders for equal minutes",
    "100 MB of English Wikipedia, D = 131,337 words, d = 256, three minutes of one thread's CPU time each on a busy "
    "machine; perplexity of 19,452 words of the last hundredth of the articles over all words, ranks of 2,000 to "
    "11,000 of them. The n-gram network has the learning rate that was better on WikiText-2, 3e-3, and with two heads "
    "its default, 1e-3, too. **The LSTM is 5 % ahead with adaptive softmax, which is best here, and level with sampled "
    "softmax at the better of the two rates**; with the exact head (spherical softmax, another model) it is 2 % "
    "behind, with the full one 2 % ahead. All of it is about the start: no head has seen more than an eighth of the "
    "text. TRAIN and TEST are the parts that recipes/language_model.py cuts.",
    "python recipes/equal_minutes.py language-model TRAIN TEST --minutes 3 --encoders lstm,ngram "
    """--heads sampled,adaptive,retrieved,exact,full --options '{"minimum_count": 2, "tokens": "words"}'""",
    (
        Table(
            _MINUTES,
            (*_WORDS[:2], Column("learning rate", "encoder_lr", 1, "g"), *_WORDS[2:]),
            {"job": "language-model", "set": "enwiki-100m"},
        ),
    ),
)
