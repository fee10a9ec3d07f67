"""Run folders from elsewhere: what is in them is checked as input is."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.foreign import LAST, Change

from widehead.errors import CheckpointError
from widehead.runs import Run
from widehead.training.checkpoint import load_checkpoint, save_checkpoint


def change_tree(path: Path, change: Change) -> None:
    """Another content of a file, with the check sum that fits it."""
    tree = load_checkpoint(path)
    change(tree)
    path.rename(path.with_suffix(".before"))  # its tensors are read from there
    save_checkpoint(path, tree)
    path.with_suffix(".before").unlink()


def changed(copied: Callable[[str], Path], job: str, change: Change) -> Path:
    """A run of a job whose checkpoint has another content."""
    run = copied(job)
    change_tree(run / LAST, change)
    return run


def change_vocabulary(run: Path, name: str, change: Change) -> None:
    """As above, and the checkpoint says that it belongs to this file."""
    path = run / "vocabularies" / name
    change_tree(path, change)
    change_tree(run / LAST, lambda tree: tree["origin"]["names"].update({name: zlib.crc32(path.read_bytes())}))


def put(*path: Any, value: Any) -> Change:
    """Set one entry of a tree, or what ``value`` makes of it."""

    def change(tree: Any) -> None:
        for step in path[:-1]:
            tree = tree[step]
        tree[path[-1]] = value(tree[path[-1]]) if callable(value) else value

    return change


def at(place: Any, value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """The tensor with another number at a place."""

    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor[place] = value
        return tensor

    return change


# -- saved matrices ---------------------------------------------------------------------------------------------------
HISTORIES: dict[str, Change] = {
    **{f"item {bad}": put("items", value=at(7, bad)) for bad in (2_000_000_000, 60, -1, -5, -(2**31))},
    "an offset that falls": put("offsets", value=at(3, 0)),
    "an offset beyond the items": put("offsets", value=at(3, 10**6)),
    "a negative offset": put("offsets", value=at(1, -4)),
    "offsets that begin later": put("offsets", value=at(0, 2)),
    "offsets that end sooner": put("offsets", value=at(-1, 599)),
    "offsets that end later": put("offsets", value=at(-1, 10**12)),
    "fewer offsets": put("offsets", value=lambda t: t[:-1]),
    "more offsets": put("offsets", value=lambda t: torch.cat([t, t[-1:]])),
    "no offsets": put("offsets", value=lambda t: t[:0]),
    "fewer items": put("items", value=lambda t: t[:-9]),
    "items in a table": put("items", value=lambda t: t[:, None]),
    "items of another type": put("items", value=lambda t: t.double()),
    "offsets of another type": put("offsets", value=lambda t: t.float()),
    "offsets that are bytes": put("offsets", value=lambda t: t.to(torch.uint8)),
    "items that are none": put("items", value=None),
    "items that are a list": put("items", value=[1, 2]),
    "items that are text": put("items", value="1"),
    "ratings that are not finite": put("ratings", value=torch.full((600,), torch.nan)),
    "infinite ratings": put("ratings", value=torch.full((600,), torch.inf)),
    "too few ratings": put("ratings", value=torch.ones(10)),
    "ratings of another type": put("ratings", value=torch.ones(600, dtype=torch.bfloat16)),
    "another number of items": put("num_items", value=61),
    "a number of items that is none": put("num_items", value="60"),
    "no items": lambda tree: tree.pop("items"),
    "nothing": lambda tree: tree.clear(),
}
COUNTS: dict[str, Change] = {
    "a negative count": put("counts", value=at(2, -1)),
    "more than there are documents": put("counts", value=at(2, 10**9)),
    "counts of another type": put("counts", value=lambda t: t.double()),
    "fewer counts": put("counts", value=lambda t: t[:-1]),
    "documents that are no number": put("num_documents", value="many"),
    "negative documents": put("num_documents", value=-7),
    "half a document": put("num_documents", value=0.5),
    "no counts": lambda tree: tree.pop("counts"),
}
FREQUENCIES: dict[str, Change] = {
    "a negative frequency": put("frequencies", value=at(2, -1.0)),
    "a frequency that is none": put("frequencies", value=at(2, torch.nan)),
    "an infinite frequency": put("frequencies", value=at(2, torch.inf)),
    "fewer frequencies": put("frequencies", value=lambda t: t[:-1]),
    "a table": put("frequencies", value=lambda t: t[None]),
    "text": put("frequencies", value="often"),
    "none": lambda tree: tree.clear(),
}
MATRICES = {
    **{what: ("recommender", "history.safetensors", change) for what, change in HISTORIES.items()},
    **{what: ("multilabel", "label_counts.safetensors", change) for what, change in COUNTS.items()},
    **{what: ("frequencies", "frequencies.safetensors", change) for what, change in FREQUENCIES.items()},
}


@pytest.mark.parametrize(("job", "name", "change"), MATRICES.values(), ids=MATRICES)
def test_a_saved_matrix_is_checked_as_input_is(
    copied: Callable[[str], Path], job: str, name: str, change: Change
) -> None:
    run = copied(job)
    change_vocabulary(run, name, change)
    with pytest.raises(CheckpointError, match=f"{name} should hold .* Found"):
        Run.open(run).network  # noqa: B018


LABELS: dict[str, Change] = {
    "a label less": put("keys", value=lambda keys: keys[:-1]),
    "labels that are numbers": put("keys", value=lambda keys: list(range(len(keys)))),
    "labels that are text": put("keys", value=lambda keys: "x" * len(keys)),
    "a word less": put("text", "words", value=lambda words: words[:-1]),
    "a weight that is none": put("text", "idf", value=lambda idf: [float("nan"), *idf[1:]]),
    "an infinite weight": put("text", "idf", value=lambda idf: [float("inf"), *idf[1:]]),
    "weights in a table": put("text", "idf", value=lambda idf: [idf]),
    "too few names": put("names", value=["one"]),
    "a negative number of labels": put("num_labels", value=-1),
    "a number of features that is none": put("num_features", value="9"),
    "no text": lambda tree: tree.pop("text"),
}


@pytest.mark.parametrize("what", LABELS)
def test_saved_labels_are_checked(copied: Callable[[str], Path], what: str) -> None:
    run = copied("multilabel")
    path = run / "vocabularies" / "labels.json"
    saved = json.loads(path.read_text())
    LABELS[what](saved)
    path.write_text(json.dumps(saved))
    with pytest.raises(CheckpointError, match=r"labels\.json should hold the labels of the run\. Found"):
        Run.open(run).network  # noqa: B018


# -- every array and number of a checkpoint ---------------------------------------------------------------------------
BAD = (torch.nan, torch.inf, -torch.inf)


def weights(tree: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {f"{part}.{name}": tensor for part in ("encoder", "head") for name, tensor in tree[part].items()}


@pytest.mark.parametrize("job", ["recommender", "multilabel", "frequencies", "adaptive", "full", "momentum"])
def test_weights_that_are_not_finite_are_refused_by_name(copied: Callable[[str], Path], job: str) -> None:
    run = copied(job)
    tried = 0
    for i, (name, tensor) in enumerate(weights(load_checkpoint(run / LAST)).items()):
        if not tensor.is_floating_point() or tensor.numel() == 0:
            continue
        whole = (run / LAST).read_bytes()
        part, entry = name.split(".", 1)
        change_tree(run / LAST, put(part, entry, value=at((-1,) * tensor.ndim, BAD[i % 3])))
        with pytest.raises(CheckpointError, match=re.escape(entry) if entry != "counters" else "steps") as error:
            Run.open(run).network  # noqa: B018
        assert str(run / LAST) in str(error.value)
        (run / LAST).unlink()
        (run / LAST).write_bytes(whole)
        tried += 1
    assert tried >= 2


MOMENTS = ("encoder_optimizer", "parts", 0, "state", 0)
GROUP = ("encoder_optimizer", "parts", 0, "param_groups", 0)
OF_R = ("head_optimizer", "state", 0, "preconditioner")
TREES: dict[str, tuple[str, Change]] = {
    "a moment that is none": ("full", put("head_optimizer", "state", 0, "exp_avg", value=at((0, 0), torch.nan))),
    "an infinite moment": ("full", put(*MOMENTS, "exp_avg_sq", value=at((0, 0), 1e999))),
    "fewer moments": ("full", put(*MOMENTS, "exp_avg", value=lambda t: t[:-1])),
    "R that is none": ("recommender", put(*OF_R, value=at((0, 0), torch.nan))),
    "a learning rate that is none": ("full", put(*GROUP, "lr", value=torch.nan)),
    "a schedule that is none": ("full", put("schedulers", 0, "base_lrs", value=[torch.inf])),
    "a schedule without a place": ("full", put("schedulers", 0, "last_epoch", value="first")),
    "a schedule less": ("full", put("schedulers", value=lambda found: found[:-1])),
    "a negative step": ("recommender", put("position", "step", value=-1)),
    "half a step": ("recommender", put("position", "step", value=0.5)),
    "a step that is text": ("recommender", put("position", "step", value="9")),
    "a negative batch": ("recommender", put("position", "batch", value=-3)),
    "a batch that there is not": ("recommender", put("position", "batch", value=10**9)),
    "endless seconds": ("recommender", put("position", "seconds", value=torch.inf)),
    "a counter that there is not": ("recommender", put("position", "speed", value=1)),
    "random numbers of another kind": ("recommender", put("random", "cpu", value=torch.zeros(3, dtype=torch.uint8))),
    "random numbers that are none": ("recommender", put("random", value={})),
    "an origin in lists": ("recommender", put("origin", "options", value=[1])),
    "sizes that are text": ("recommender", put("origin", "sizes", value="60")),
}


@pytest.mark.parametrize("what", TREES)
def test_what_training_goes_on_from_is_checked(copied: Callable[[str], Path], what: str) -> None:
    run = changed(copied, *TREES[what])
    with pytest.raises(CheckpointError, match=r"last\.safetensors should"):
        Run.open(run).train(quiet=True, epochs=2)


def in_a_circle(links: torch.Tensor) -> torch.Tensor:
    """Each place is taken once, but the first inner node is its own child, in the place of a class."""
    links, node = links.clone(), 60
    child = int((links[:node] // 2 == 0).nonzero()[0])
    links[[child, node]] = links[[node, child]]
    return links


TABLES: dict[str, tuple[str, Change]] = {
    **{
        f"{job}: rank {bad}": (job, put("head", "ranks", value=at(3, bad)))
        for job in ("frequencies", "adaptive")
        for bad in (-1, 60, 10**12)
    },
    "a rank twice": ("adaptive", put("head", "ranks", value=lambda t: t * 0)),
    "ranks that are no integers": ("adaptive", put("head", "ranks", value=lambda t: t.double() + 0.5)),
    "a path in a circle": ("huffman", put("head", "links", value=lambda t: t * 0)),
    "a node that is its own parent": ("huffman", put("head", "links", value=at(60, 1))),
    "one that takes the place of a class": ("huffman", put("head", "links", value=in_a_circle)),
    "a node that there is not": ("huffman", put("head", "links", value=at(5, 10**9))),
    "a negative node": ("huffman", put("head", "links", value=at(5, -1))),
}


@pytest.mark.parametrize("what", TABLES)
def test_the_tables_of_a_head_are_checked(copied: Callable[[str], Path], what: str) -> None:
    run = changed(copied, *TABLES[what])
    with pytest.raises(CheckpointError, match=r"last\.safetensors should hold a head"):
        Run.open(run).network  # noqa: B018
