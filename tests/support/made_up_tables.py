"""Files of users and items as other programs and people write them, each with what is right to make of it."""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import polars

LINE_ENDS = ("\n", "\n", "\n", "\r\n", "\r", "\r\r\n")


@dataclass
class Made:
    """A file, options of the command, and what may come of it.

    ``parts`` must be in the line that says what was read, and ``vocabularies`` be those of the run, if it is read.
    """

    data: bytes
    about: str
    may_read: bool = True
    may_refuse: bool = False
    options: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    vocabularies: dict[str, list[str]] = field(default_factory=dict)


Pairs = list[tuple[str, str, float]]

NAMES: dict[str, Callable[[Random, int], str]] = {
    "letters": lambda r, i: f"u{i}",
    "digits": lambda r, i: str(i),
    "words": lambda r, i: "".join("aeioknrst"[int(d)] for d in f"{i + 10}"),
    "floats": lambda r, i: f"{i}.0",
    "negative": lambda r, i: str(-i),
    "scripts": lambda r, i: f"{['हिन्दी', 'ü', '猫'][i % 3]}{i}",
    "colons": lambda r, i: f"{i}:{i + 1}",
    "accounts": lambda r, i: f"site|{i}",
    "mails": lambda r, i: f"x.{i}@example.org",
    "zeros": lambda r, i: f"00{i}",
    "blanks": lambda r, i: f"The Fox {i}",
    "commas": lambda r, i: f"Fox {i}, the",
}
KNOWN = {
    "user": ("user", "user_id", "userId", "User-ID", "USER ID", "customer_id", "uid", "reviewerID"),
    "item": ("item", "item_id", "movieId", "Product ID", "asin", "track-id", "business_id"),
    "rating": ("rating", "Score", "stars", "plays"),
}
FOREIGN = (("member", "venue"), ("who", "what"), ("von", "nach"), ("source", "target"), ("f0", "f1"))


def made_up_table(seed: int) -> Made:
    """A file by its number."""
    rng = Random(seed)
    pairs, kinds = _pairs(rng)
    write = rng.choice((_lists, _table, _table, _table, _table, _separated, _other, _parquet))
    made = write(rng, pairs, kinds)
    made.about += f", users {kinds[0]}, items {kinds[1]}"
    return made


def _pairs(rng: Random) -> tuple[Pairs, tuple[str, str]]:
    kinds = rng.choice(list(NAMES)), rng.choice(list(NAMES))
    users, items = rng.randint(1, 8), rng.randint(2, 9)
    pairs = [
        (NAMES[kinds[0]](rng, rng.randrange(users)), NAMES[kinds[1]](rng, rng.randrange(items)), rng.randint(1, 10) / 2)
        for _ in range(rng.randint(3, 30))
    ]
    return pairs, kinds


def encoded(rng: Random, lines: list[str], end: str | None = None, blank: bool = True) -> tuple[bytes, str]:
    """The bytes of lines, with some line end, blank lines, a byte-order mark, or packed."""
    end = rng.choice(LINE_ENDS) if end is None else end
    if blank and rng.random() < 0.2:
        lines = [*lines]
        lines.insert(rng.randint(0, len(lines)), "")
    data = (end.join(lines) + end * (rng.random() < 0.8)).encode()
    data = b"\xef\xbb\xbf" + data if rng.random() < 0.1 else data
    return gzip.compress(data) if rng.random() < 0.1 else data, f"end {end!r}"


def expected(pairs: Pairs, rated: bool, users: list[str] | None = None) -> tuple[list[str], dict[str, list[str]]]:
    """What the line and the vocabularies must say: plain Python, as docs describe it."""
    users = list(dict.fromkeys(user for user, _, _ in pairs)) if users is None else users
    times = Counter(item for _, item, _ in pairs)
    if all(item.isascii() and item.isdigit() and str(int(item)) == item for item in times):
        items = sorted(times, key=int)
    else:
        items = sorted(times, key=lambda item: (-times[item], item))
    last = {(user, item): rating for user, item, rating in pairs}
    repeats = f" ({len(pairs) - len(last)} repeats left out)" if len(pairs) > len(last) else ""
    ratings = f"ratings {min(last.values()):g} to {max(last.values()):g}" if rated else "no ratings"
    line = f"{len(users)} users × {len(items)} items, {len(last)} pairs{repeats}, {ratings}; first users "
    return [line], {"users.txt": users, "items.txt": items}


def _lists(rng: Random, pairs: Pairs, kinds: tuple[str, str]) -> Made:
    by_user: dict[str, list[str]] = {}
    for user, item, _ in pairs:
        by_user.setdefault(user, []).append(item)
    data, end = encoded(rng, [" ".join([user, *items]) for user, items in by_user.items()])
    parts, vocabularies = expected([(u, i, 1.0) for u, items in by_user.items() for i in items], False)
    made = Made(data, f"lists, {end}", parts=parts, vocabularies=vocabularies)
    if "blanks" in kinds:  # such a name is several: nothing can tell
        made.parts, made.vocabularies = [], {}
    if "commas" in kinds:  # a table, if there is one comma on each line
        made.parts, made.vocabularies, made.may_refuse = [" was read as a pair: "], {}, True
    # Names that look like columns, or like libsvm's weights.
    made.may_refuse = made.may_refuse or "accounts" in kinds or "colons" in kinds
    return made


def _table(rng: Random, pairs: Pairs, kinds: tuple[str, str]) -> Made:
    separator, end = rng.choice("\t,"), rng.choice(LINE_ENDS)
    rated, header = rng.random() < 0.5, rng.choice(("none", "known", "typed", "foreign"))
    extra = header in ("known", "typed") and rng.random() < 0.5
    columns = ["user", "item"] + ["rating"] * rated + ["extra"] * extra
    if header in ("known", "typed"):
        rng.shuffle(columns)
    rows = []
    for user, item, rating in pairs:
        cells = {"user": user, "item": item, "rating": f"{rating:g}", "extra": "2024-05-01 09:00"}
        rows.append([cells[column] for column in columns])
    first = []
    if header == "typed":
        kind = {"user": "token", "item": "token", "rating": "float", "extra": "float"}
        first = [
            [("timestamp" if c == "extra" else f"{c}_id" if c != "rating" else c) + f":{kind[c]}" for c in columns]
        ]
    elif header == "known":
        first = [[rng.choice(KNOWN.get(column, ("note", "time"))) for column in columns]]
    elif header == "foreign":
        first = [[*rng.choice(FOREIGN), *["note"] * rated]]
    quote = separator == "," and (rng.random() < 0.3 or "commas" in kinds)
    lines = [separator.join(f'"{cell}"' if quote else cell for cell in row) for row in first + rows]
    data, end = encoded(rng, lines, end)
    about = f"table, separator {separator!r}, header {header}, columns {columns}, {end}"
    made = Made(data, about)
    made.parts, made.vocabularies = expected(pairs, rated)
    if header == "foreign":
        # Refused for the rating or as all else are numbers; else a pair, and said so.
        made.may_refuse, made.may_read = True, not rated
        made.parts, made.vocabularies = expected([(first[0][0], first[0][1], 1.0), *pairs], False)
        made.parts.append(" was read as a pair: ")
    if header == "none":
        made.parts.append(" was read as a pair: ")
        made.may_refuse = _words_before_numbers(pairs)
    if "accounts" in kinds and header in ("none", "foreign"):
        made.may_refuse = True
    if rng.random() < 0.3:
        made.options = ["--ratings"]
        if not rated:
            made.may_read, made.may_refuse = False, True
    return made


def _words_before_numbers(pairs: Pairs) -> bool:
    return not any(name.isdigit() for name in pairs[0][:2]) and all(
        u.isdigit() and i.isdigit() for u, i, _ in pairs[1:]
    )


def _separated(rng: Random, pairs: Pairs, kinds: tuple[str, str]) -> Made:
    """Tables with separators that are not read: refused, or if single columns cannot be told, read as what they say."""
    separator = rng.choice((";", "|", "::"))
    third = rng.choice(("2024-05-01 09:00", "4", "4,5", "Fox hen", None))
    header = [["user", "item", "when"][: 2 + (third is not None)]] if rng.random() < 0.3 else []
    rows = [[user, item, *([third] if third else [])] for user, item, _ in pairs]
    data, end = encoded(rng, [separator.join(row) for row in header + rows])
    return Made(data, f"separator {separator!r}, third {third!r}, header {header}, {end}", False, True)


def _other(rng: Random, pairs: Pairs, kinds: tuple[str, str]) -> Made:
    """Formats of other programs."""
    ids = {name: i + 1 for i, name in enumerate(dict.fromkeys(name for pair in pairs for name in pair[:2]))}
    numbers = [(ids[user], ids[item], rating) for user, item, rating in pairs]
    objects = [{"user": user, "item": item, "rating": rating} for user, item, rating in pairs]
    formats: dict[str, list[str]] = {
        "JSON lines": [json.dumps(o, ensure_ascii=rng.random() < 0.5) for o in objects],
        "JSON": json.dumps(objects, indent=rng.choice((None, 1))).split("\n"),
        "JSON arrays": [json.dumps([user, item]) for user, item, _ in pairs],
        "Python dicts": [str(o) for o in objects],
        "MatrixMarket": [
            "%%MatrixMarket matrix coordinate real general",
            f"{len(ids)} {len(ids)} {len(pairs)}",
            *(f"{u} {i} {r:g}" for u, i, r in numbers),
        ],
        "libsvm": [f"{u} {i}:1 {i + 3}:{r:g}" for u, i, r in numbers],
        "comments": ["# FromNodeId ToNodeId", *(f"{u}{rng.choice(' ' + chr(9))}{i}" for u, i, _ in numbers)],
        "KONECT": ["% bip weighted", *(f"{u} {i} {r:g} 1234567" for u, i, r in numbers)],
        "RDF": [f"<http://x/{u}> <http://x/took> <http://x/{i}> ." for u, i, _ in numbers],
        "ARFF": ["@relation pairs", "@attribute user numeric", "@data", *(f"{u},{i}" for u, i, _ in numbers)],
        "HTML": ["<!DOCTYPE html>", "<html><body>", "Not found, sorry", "</body></html>"],
        "LFS": ["version https://git-lfs.github.com/spec/v1", f"oid sha256:{'ab' * 32}", "size 12345"],
        "SQL": [f"INSERT INTO pairs VALUES ({u}, {i});" for u, i, _ in numbers],
        "YAML": [line for u, i, _ in numbers for line in (f"- user: {u}", f"  item: {i}")],
        "spaces": ["user item rating", *(f"{u} {i} {r:g}" for u, i, r in numbers)],
    }
    name = rng.choice(list(formats))
    data, end = encoded(rng, formats[name])
    return Made(data, f"{name}, {end}", False, True)


def _parquet(rng: Random, pairs: Pairs, kinds: tuple[str, str]) -> Made:
    rated = rng.random() < 0.5
    columns: dict[str, list[str] | list[float]] = {
        rng.choice(KNOWN["item"]): [item for _, item, _ in pairs],
        rng.choice(KNOWN["user"]): [user for user, _, _ in pairs],
    }
    if rated:
        columns[rng.choice(KNOWN["rating"])] = [rating for _, _, rating in pairs]
    file = io.BytesIO()
    polars.DataFrame(columns).write_parquet(file)
    parts, vocabularies = expected(pairs, rated)
    made = Made(file.getvalue(), f"Parquet, {list(columns)}", parts=parts, vocabularies=vocabularies)
    if rng.random() < 0.3:
        made.options = ["--ratings"]
        made.may_read, made.may_refuse = rated, not rated
    return made


def names_in(path: Path) -> list[str]:
    """A vocabulary as its file holds it; none of the names here has a backslash."""
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
