"""The next item: a planted chain is learnt to its optimum; what is judged, answered and left out of odd sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.job_files import config_of

from widehead.errors import DataError
from widehead.jobs import configure
from widehead.jobs.next_item import NextItem
from widehead.runs import Run
from widehead.training.checkpoint import load_checkpoint

ITEMS, SHARES = 20, (0.6, 0.3, 0.1)


def chain(path: Path, count: int, seed: int, order: int) -> Path:
    """Sessions in which what stands ``order`` places before decides: one of three items, with these shares."""
    rng = np.random.default_rng(seed)
    after = np.random.default_rng(7).permuted(np.tile(np.arange(ITEMS), (ITEMS, 1)), axis=1)[:, :3]
    lines = []
    for _ in range(count):
        items = rng.integers(ITEMS, size=order).tolist()
        while len(items) < 12:
            items.append(int(after[items[-order], rng.choice(3, p=SHARES)]))
        lines.append(" ".join(map(str, items)) + "\n")
    path.write_text("".join(lines))
    return path


@pytest.mark.parametrize(
    ("order", "options"),
    [
        (1, {"head": "full"}),
        (1, {"head": "exact", "hidden_norm": None}),
        (1, {"head": "negative-sampling"}),
        (2, {"encoder": "gru"}),
        pytest.param(2, {"head": "full", "encoder": "lstm", "epochs": 12}, marks=pytest.mark.long),
        pytest.param(2, {"head": "full", "encoder": "transformer", "encoder_lr": 0.005}, marks=pytest.mark.long),
        (2, {"head": "full", "encoder": "ngram", "context": 3}),
    ],
)
def test_a_planted_chain_is_learnt_to_its_optimum(order: int, options: dict[str, Any], tmp_path: Path) -> None:
    """The best that can be known of the next item finds it with probability 0.6 first, 0.9 in two, 1 in three."""
    train, test = chain(tmp_path / "train", 400 * order, 0, order), chain(tmp_path / "test", 500, 1, order)
    sizes = {"width": 32, "batch_size": 32, "epochs": 8, "encoder_lr": 0.02, "dropout": 0.0, "input_dropout": 0.0}
    files = {"train": str(train), "test": str(test), "out": str(tmp_path / "run")}
    config = configure("next-item", **{**files, **sizes, "at": (1, 2, 3), "warmup_steps": 0, **options})
    metrics = Run.new(config).train(quiet=True).metrics
    # Three standard deviations of a share of 500, and the few steps are not all of the way.
    for k, share in zip((1, 2, 3), (0.6, 0.9, 1.0), strict=True):
        assert metrics[f"recall@{k}"] == pytest.approx(share, abs=3 * (share * (1 - share) / 500) ** 0.5 + 0.03)
    assert metrics["mrr@3"] == pytest.approx(0.6 + 0.3 / 2 + 0.1 / 3, abs=0.05)
    assert metrics["mrr@1"] == metrics["recall@1"]


@pytest.mark.parametrize(
    ("lengths", "context", "batch"),
    [
        ([2] * 40, 50, 400),
        ([5] * 40, 50, 100),
        ([11] * 40, 50, 40),
        ([301] * 4, 50, 8),
        ([301] * 3 + [1] * 7 + [2] * 18, 50, 16),  # 918 places of 36 pieces, and sequences that teach nothing
        ([301] * 4, 1, 400),
        ([2_500] * 4, 2_048, 1),
    ],
)
def test_a_batch_that_is_left_to_the_data_has_some_hundred_places(
    lengths: list[int], context: int, batch: int, tmp_path: Path
) -> None:
    """Hundreds of long histories a step would make too few steps: a third of the MRR on Wikipedia's paragraphs."""
    (tmp_path / "train").write_text("".join(" ".join(str(i % 7) for i in range(n)) + "\n" for n in lengths))
    given = {"train": str(tmp_path / "train"), "holdout": 0.0, "neighbours": 0, "context": context, "at": (1,)}
    run = Run.new(configure("next-item", **given, out=str(tmp_path / "run")))
    assert run.config.batch_size == batch
    assert Run.open(run.config.out).config.batch_size == batch
    assert Run.new(configure("next-item", **given, out=str(tmp_path / "other"), batch_size=7)).config.batch_size == 7


@pytest.mark.parametrize(
    ("sequences", "batch", "epochs"), [(40, 0, 15), (40, 1, 15), (1_250, 1, 12), (2_999, 2, 10), (4_000, 1, 5)]
)
def test_passes_that_are_left_to_the_data_make_some_thousands_of_steps(
    sequences: int, batch: int, epochs: int, tmp_path: Path
) -> None:
    """Five passes over few sequences are so few steps that half of what could be learnt is not."""
    (tmp_path / "train").write_text("1 2\n" * sequences)
    given = {"train": str(tmp_path / "train"), "holdout": 0.0, "neighbours": 0, "at": (1,), "batch_size": batch}
    run = Run.new(configure("next-item", **given, out=str(tmp_path / "run")))
    assert run.config.epochs == epochs
    assert Run.open(run.config.out).config.epochs == epochs
    with pytest.raises(ValueError, match="`epochs` should be at least 1 for a run that goes on"):
        run.train(quiet=True, epochs=0)
    for name, more in (("three", {"epochs": 3}), ("timed", {"epochs": None, "minutes": 1.0})):
        other = Run.new(configure("next-item", **{**given, **more}, out=str(tmp_path / name)))
        assert other.config.epochs == more["epochs"]


def trained(folder: Path, **options: Any) -> Run:
    run = Run.new(config_of("next-item", folder, **options))
    run.train(quiet=True)
    return run


def test_a_run_that_goes_on_ends_like_one_that_did_not_stop(tmp_path: Path) -> None:
    """With dropout, tied rows and a sampled head, in the middle of an epoch."""
    torch.set_num_threads(1)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    trained(tmp_path / "a", epochs=3, encoder="lstm", layers=2)
    run, steps = Run.new(config_of("next-item", tmp_path / "b", epochs=3, encoder="lstm", layers=2, log_every=1)), []
    assert 13 < run.train(quiet=True, on_log=lambda *_: steps.append(0) or len(steps) == 17).step < 26
    Run.open(tmp_path / "b" / "run").train(quiet=True)
    one, two = (load_checkpoint(tmp_path / n / "run" / "checkpoints" / "last.safetensors") for n in "ab")
    for part in ("encoder", "head"):
        assert one[part].keys() == two[part].keys()
        assert all(torch.equal(one[part][name], two[part][name]) for name in one[part])


def test_what_a_test_file_asks_for(tmp_path: Path) -> None:
    """Its last items; one that is not known, or of whose others none is, counts as missed; one item asks nothing."""
    run = trained(tmp_path, epochs=1)
    path = tmp_path / "odd.txt"
    path.write_text("i1 i2\n\nzzz i3\ni7\ni4 zzz\ni5 zzz i6\n")
    test = run.job.read_test(path)
    assert not test.fits
    assert test.reading == (
        "4 sequences whose last item is to be found; 3 items are unknown, so that 2 sequences count as missed; "
        "2 of fewer than two items are left out; a sequence on each line."
    )
    inputs, targets = test.examples.batch(np.arange(len(test.examples)))
    names = run.job.class_names
    assert [[names[i] for i in row] for row in inputs.to_lists()] == [["i1"], ["i5"]]
    assert [names[i] for i in targets.class_ids.tolist()] == ["i2", "i6"]
    every = run.evaluate(path, (len(names),))
    assert every[f"recall@{len(names)}"] == 0.5
    alone = run.evaluate([["i1", "i2"], ["i5", "i6"]], (len(names),))
    assert every[f"mrr@{len(names)}"] == alone[f"mrr@{len(names)}"] / 2
    assert run.evaluate(path, (1,), at_most=1).keys() == {"recall@1", "mrr@1"}


def test_a_long_sequence_is_judged_by_its_last_items(tmp_path: Path) -> None:
    job = Run.new(config_of("next-item", tmp_path, context=4)).job
    inputs, targets = job.read_test([[f"i{i}" for i in range(12)], ["i1", "i2"]]).examples.batch(np.arange(2))
    assert [[job.class_names[i] for i in row] for row in inputs.to_lists()] == [["i7", "i8", "i9", "i10"], ["i1"]]
    assert [job.class_names[i] for i in targets.class_ids.tolist()] == ["i11", "i2"]


@pytest.mark.parametrize("text", ["i1\n\ni2\n", "zzz yyy\n", "i1 zzz\nzzz i1\n"])
def test_a_test_file_with_nothing_to_judge_by_is_refused(text: str, tmp_path: Path) -> None:
    run = trained(tmp_path, epochs=1)
    (tmp_path / "odd.txt").write_text(text)
    with pytest.raises(DataError, match=r"odd\.txt: expected sequences of two items or more that the run knows"):
        run.evaluate(tmp_path / "odd.txt")


def test_answers_are_those_of_the_last_items(tmp_path: Path) -> None:
    """A very long sequence, one item, none, and unknown ones among others; in one batch and alone."""
    run = trained(tmp_path, context=4)
    long = [f"i{i % 30}" for i in range(5000)]
    asked = [long, ["i3"], [], ["new"], ["new", "i3", "newer"], long[-4:]]
    answers = list(run.predict(asked, 3))
    assert [answer.name for answer in answers] == list("012345")
    assert [len(answer.classes) for answer in answers] == [3, 3, 0, 0, 3, 3]
    assert answers[1].classes[0] == "i22"
    assert (answers[4].classes, answers[5].classes) == (answers[1].classes, answers[0].classes)
    for row, answer in zip(asked, answers, strict=True):
        alone = next(run.predict([row], 3))
        assert alone.classes == answer.classes
        assert alone.scores == pytest.approx(answer.scores, rel=1e-5)


def test_the_sequences_that_end_last_are_held_out(tmp_path: Path) -> None:
    rows = [(f"u{u}", f"i{i}", 100 * ((7 * u) % 10) + i) for u in range(10) for i in range(3)]
    path = tmp_path / "table.csv"
    path.write_text("user,item,time\n" + "".join(f"{u},{i},{t}\n" for u, i, t in reversed(rows)))
    config = configure("next-item", train=str(path), out=str(tmp_path / "run"), holdout=0.2, width=8)
    data = Run.new(config).data
    assert data.test is not None
    assert data.test.reading == "the last 2 sequences are held out."
    # u7 and u4, the third and the sixth of the file, end at 902 and 802.
    assert data.examples.batch(np.arange(len(data.examples)))[0].to_lists() == [[0, 1]] * 8
    assert data.examples.starts.tolist() == [0, 3, 9, 12, 18, 21, 24, 27]
    few = configure("next-item", train=str(path), out=str(tmp_path / "few"), holdout=0.02, width=8)
    assert Run.new(few).data.reading.endswith("none are held out, as there are too few")


def test_options_that_do_not_fit_are_refused() -> None:
    for head in ("exact", "hierarchical", "adaptive"):
        with pytest.raises(ValueError, match=f"`tied` should be off with the head {head}"):
            configure("next-item", train="f", out="o", head=head, tied=True)
        assert not configure("next-item", train="f", out="o", head=head).tied
    assert configure("next-item", train="f", out="o", head="retrieved").tied
    with pytest.raises(ValueError, match="`encoder` should be one of gru, lstm, transformer, bag, ngram"):
        configure("next-item", train="f", out="o", encoder="cnn")


def reading_of(lines: list[list[Any]]) -> str:
    config = configure("next-item", train="given", out="run", neighbours=0)
    return NextItem.of(config, lines).reading


@pytest.mark.parametrize("named", [str, "u{}".format])
def test_lines_that_begin_with_users_are_told(named: Any) -> None:
    """Also where numbers of users are those of items, too, as in files of other programs."""
    rng = np.random.default_rng(0)
    lines = [[str(item) for item in rng.integers(1, 40, size=6)] for _ in range(300)]
    with_users = [[named(user), *line] for user, line in enumerate(lines, 1)]
    assert "as if lines began with users" in reading_of(with_users)
    for others in (lines, [*with_users, with_users[0]], with_users[:3]):
        assert "users" not in reading_of(others)


def test_items_that_hardly_ever_come_twice_are_no_users() -> None:
    """Of 100 random items of 100,000 no two need be the same."""
    assert "users" not in reading_of([[str(3 * i), str(3 * i + 1), str(3 * i + 2)] for i in range(100)])
