"""Labelled and plain texts of every make, each with what is right to make of it."""

from __future__ import annotations

import json
from random import Random

from support.made_up_tables import LINE_ENDS, Made, encoded

WORDS = ["ball", "goal", "hen", "fox", "vote", "law", "red", "cat", "sea", "ship", "42", "naïve", "größe", "猫"]
LABELS = ["sport", "news", "farm", "sea", "politics", "7", "12", "a-b"]


def made_up_labels(seed: int) -> Made:
    """A file for the multilabel job, by its number."""
    rng = Random(seed)
    documents = [
        (rng.sample(LABELS, rng.randint(0 if i else 1, 3)), rng.choices(WORDS, k=rng.randint(1, 6)))
        for i in range(rng.randint(2, 20))
    ]
    words, labels = {w for _, text in documents for w in text}, {n for names, _ in documents for n in names}
    count = sum(len(names) for names, _ in documents)
    right = f"{len(documents)} documents, {len(words)} words, {len(labels)} labels, {count} of them on documents; "
    rows = [(" ".join(names), " ".join(text)) for names, text in documents]
    kinds: dict[str, tuple[list[str], list[str] | None]] = {
        "labels, text": ([f"{names}\t{text}" for names, text in rows], [right]),
        "some texts with tabs": ([f"{n}\t{t}" + "\t!" * (i > 0) for i, (n, t) in enumerate(rows)], [right]),
        "an id before": ([f"d{i}\t{names}\t{text}" for i, (names, text) in enumerate(rows)], None),
        "an id after": ([f"{names}\t{text}\td{i}" for i, (names, text) in enumerate(rows)], None),
        "an id for labels": ([f"d{i}\t{text}" for i, (_, text) in enumerate(rows)], ["labels occur once: are they"]),
        "a header": (["labels\ttext", *(f"{names}\t{text}" for names, text in rows)], None),
        "a header, text first": (["Title\tCategory", *(f"{text}\t{names}" for names, text in rows)], None),
        "fastText": ([" ".join([*(f"__label__{n}" for n in names), *text]) for names, text in documents], None),
        "CSV": (["label,text", *(f'"{names}","{text}"' for names, text in rows)], None),
        "JSON lines": ([json.dumps({"labels": names, "text": text}) for names, text in documents], None),
        "libsvm": ([f"{i} {i + 1}:0.5 {i + 9}:1" for i in range(len(documents))], None),
        "libsvm, tabs": ([f"{i}\t{i + 1}:0.5 {i + 9}:1" for i in range(len(documents))], None),
        "XC": _xc(rng, documents),
    }
    return _made(rng, kinds)


def _xc(rng: Random, documents: list[tuple[list[str], list[str]]]) -> tuple[list[str], list[str]]:
    rows = [
        ",".join(str(LABELS.index(name)) for name in names) + "".join(f" {WORDS.index(word)}:1" for word in text)
        for names, text in documents
    ]
    count = sum(len(names) for names, _ in documents)
    sizes = f"{len(documents)} documents, {len(WORDS)} features, {len(LABELS)} labels, {count} of them on documents; "
    return [f"{len(rows)} {len(WORDS)} {len(LABELS)}", *rows], [sizes]


def made_up_text(seed: int) -> Made:
    """A file for a job on text, by its number."""
    rng = Random(seed)
    lines = [rng.choices(WORDS, k=rng.randint(1, 7)) for _ in range(rng.randint(1, 20))]
    count, different = sum(map(len, lines)), len({word for line in lines for word in line})
    right = f"{count} words on {len(lines)} lines, {different} different ones; "
    plain = [" ".join(line) for line in lines]
    kinds: dict[str, tuple[list[str], list[str] | None]] = {
        "text": (plain, [right]),
        "sentences": ([f"{line.capitalize()}." for line in plain], [right]),
        "articles": (["<doc id=1>", *plain, "</doc>"], [right]),
        "markdown": (["# " + plain[0], *plain[1:]], [right]),
        "JSON lines": ([json.dumps({"text": line}) for line in plain], None),
        "MatrixMarket": (["%%MatrixMarket matrix array", *plain], None),
        "RTF": ([r"{\rtf1\ansi", *plain, "}"], None),
    }
    return _made(rng, kinds)


def _made(rng: Random, kinds: dict[str, tuple[list[str], list[str] | None]]) -> Made:
    """One of the kinds; those without parts must be refused."""
    name = rng.choice(list(kinds))
    lines, parts = kinds[name]
    # A blank line is a row of XC text without labels.
    data, about = encoded(rng, lines, rng.choice(LINE_ENDS), blank=name != "XC")
    if rng.random() < 0.1:
        code = rng.choice(("utf-16", "latin-1"))
        data, parts, name = "\n".join([*lines, "é"]).encode(code, "replace"), None, f"{name}, {code}"
    return Made(data, f"{name}, {about}", parts is not None, parts is None, parts=parts or [])
