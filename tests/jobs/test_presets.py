"""Presets: which one goes with the options that are given, what it gives, and that users can name another."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from widehead.jobs import JOBS, configure
from widehead.names import HEADS, LOSSES, OPTIMIZERS, PARAMETER_OPTIMIZERS
from widehead.options import OPTIONS

NOTES = ("job", "out", "train", "preset", "because")
Combination = tuple[str, str, str, str]


def table() -> dict[Combination, dict[str, Any]]:
    """Of defaults.txt: the defaults of each job with each head, loss and head optimiser ("-": not given)."""
    made: dict[Combination, dict[str, Any]] = {}
    for line in (Path(__file__).parent / "defaults.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            job, heads, losses, optimizers, values = line.split(" | ")
            for combination in itertools.product([job], *(c.split(",") for c in (heads, losses, optimizers))):
                made[combination] = json.loads(f"{{{values}}}")  # type: ignore[index]
    return made


def combinations(jobs: set[str]) -> Iterator[Combination]:
    optimizers = ["-", *OPTIMIZERS, *PARAMETER_OPTIMIZERS]
    return itertools.product(jobs, ["-", *HEADS], ["-", *LOSSES], optimizers)


def configured(job: str, **options: Any) -> Any:
    return configure(job, out="run", **({} if JOBS[job].brings_data else {"train": "file"}), **options)


def test_defaults_of_every_combination() -> None:
    """Of all that the table names; of these, the combinations that it does not have cannot go together."""
    known = table()
    named = [set(names) for names in zip(*known, strict=True)]
    for combination in combinations(named[0]):
        if not all(name in names for name, names in zip(combination, named, strict=True)):
            continue  # newer than the table
        job, *chosen = combination
        names = ("head", "loss", "head_optimizer")
        options = {name: value for name, value in zip(names, chosen, strict=True) if value != "-"}
        try:
            config = vars(configured(job, **options))
        except ValueError:
            assert combination not in known, combination
            continue
        own = {n: json.loads(json.dumps(config[n])) for n, row in OPTIONS.items() if config[n] != row.default}
        assert {n: v for n, v in own.items() if n not in (*NOTES, *options)} == known[combination], combination


@pytest.mark.parametrize(
    ("job", "options", "preset", "because"),
    [
        ("recommender", {}, "svd", ""),
        ("recommender", {"hidden": []}, "svd", ""),
        ("recommender", {"hidden": [8]}, "trained", "hidden = [8]"),
        ("multilabel", {}, "axes", ""),
        ("multilabel", {"encoder_lr": 0.5}, "trained", "encoder_lr = 0.5"),
        ("multilabel", {"head": "full"}, "sampled", "head = full"),
        ("multilabel", {"head": "full", "head_optimizer": "adam"}, "sampled-adam", "head_optimizer = adam"),
        ("language-model", {"head": "full"}, "sampled", ""),
        ("language-model", {"loss": "z-loss"}, "exact", "loss = z-loss"),
        ("language-model", {"head_optimizer": "sgd"}, "exact", "head_optimizer = sgd"),
        ("recommender", {"preset": "trained"}, "trained", "asked for"),
    ],
)
def test_the_preset_and_why(job: str, options: dict[str, Any], preset: str, because: str) -> None:
    config = configured(job, **options)
    assert (config.preset, config.because) == (preset, because)


def test_a_preset_that_is_named_gives_its_defaults() -> None:
    for name, job in JOBS.items():
        for preset in job.presets:
            config = configured(name, preset=preset.name, seed=7)
            assert {n: getattr(config, n) for n in preset.values} == preset.values
            assert config.seed == 7
    with pytest.raises(ValueError, match=r"`preset` should be one of svd, trained\. Found 'axes'"):
        configured("recommender", preset="axes")


def test_heads_beside_the_presets_own_have_their_options() -> None:
    assert configured("next-item").head_options == {"negatives": 1000}
    assert configured("next-item", head="blackout").head_options == {}
    assert configured("next-item", head="retrieved").head_options == {"retrieved": 500, "tail": 500}
    assert configured("next-item", head="retrieved", head_options={"tail": 9}).head_options == {"tail": 9}
    assert configured("language-model", head="retrieved").head_options == {}


@pytest.mark.parametrize("options", [{}, {"head": "retrieved"}])
def test_options_of_a_run_that_change_are_no_defaults_of_the_next_one(options: dict[str, Any]) -> None:
    first = configured("next-item", **options).head_options
    before = dict(first)
    first.clear()
    assert configured("next-item", **options).head_options == before != {}


def test_presets_have_names_of_their_own_and_say_what_they_are() -> None:
    for job in JOBS.values():
        assert len({preset.name for preset in job.presets}) == len(job.presets)
        assert all(preset.help.endswith(".") for preset in job.presets)
        assert all(set(preset.values) <= set(OPTIONS) for preset in job.presets)
