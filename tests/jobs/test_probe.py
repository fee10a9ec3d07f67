"""Whether neighbours should rank, tried before a run: a dense twin of the small network, and what runs make of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import scipy.sparse
import torch
from support.chosen import rooms

import widehead as wh
from widehead.data import Interactions, Vocabulary
from widehead.errors import CheckpointError
from widehead.jobs import build_network, configure, recommender
from widehead.jobs.probe import Probe, least_squares, probed, products_of, small_network
from widehead.jobs.recommender import Recommender
from widehead.jobs.user_votes import UserVotes, hidden_pairs
from widehead.runs import Run


def matrix_of(lists: list[list[str]]) -> Any:
    items = {name: n for n, name in enumerate(sorted({name for row in lists for name in row}))}
    rows = np.repeat(np.arange(len(lists)), [len(row) for row in lists])
    columns = [items[name] for row in lists for name in row]
    return scipy.sparse.csr_matrix((np.ones(len(columns), np.float32), (rows, columns)))


def job_of(matrix: Any) -> Recommender:
    names = Vocabulary([str(item) for item in range(matrix.shape[1])])
    users = [str(user) for user in range(matrix.shape[0])]
    return Recommender(Interactions(matrix, users, names, np.zeros(matrix.shape[0], np.int64)), False)


def config_of(**options: Any) -> Any:
    return configure("recommender", **{"train": "train.txt", "out": "runs/x", "at": (5,), "width": 4, **options})


def begun(folder: Path, lists: list[list[str]], out: str = "run", **options: Any) -> Run:
    path = folder / "train.txt"
    path.write_text("".join(f"u{user} {' '.join(row)}\n" for user, row in enumerate(lists)))
    config = configure("recommender", train=str(path), out=str(folder / out), at=(5,), **{"width": 4, **options})
    return Run.new(config)


def test_the_output_layer_is_that_of_a_dense_twin() -> None:
    """In several parts, with users of no item, scaled targets and a ridge."""
    rng = np.random.default_rng(0)
    job = job_of(scipy.sparse.csr_matrix((rng.random((150, 30)) < 0.2).astype(np.float32)))
    config = config_of(neighbours=0)
    examples, encoder = job.examples(config), job.encoder(config)
    inputs, targets = examples.batch(np.arange(len(examples)))
    hidden = encoder(inputs).detach().double().numpy()
    dense = np.zeros((len(examples), 30))
    dense[targets.example_ids, targets.class_ids] = targets.values_or_ones(torch.float64)
    gram = hidden.T @ hidden
    expected = dense.T @ hidden @ np.linalg.inv(gram + 0.6 * np.trace(gram) / 4 * np.eye(4))
    assert len(np.unique(dense)) > 5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("widehead.jobs.probe._BLOCK", 64)
        found = least_squares(*products_of(encoder, examples, (30, 4)), 0.6)
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=1e-4, atol=1e-6)


def test_the_small_network_is_as_one_that_is_trained(tmp_path: Path) -> None:
    """But for what a ridge leaves of the random weights that training begins with."""
    run = begun(tmp_path, rooms(1_300, 40), width=24, neighbours=0)
    run.train(quiet=True)
    job, config = cast(Recommender, run.job), run.config
    first = build_network(job, config).head.weight().double()
    state = torch.get_rng_state()
    small = small_network(job, 24, config)
    assert torch.equal(torch.get_rng_state(), state)  # the run after it draws the same numbers
    inputs = job.examples(config).batch(np.arange(1_300))[0]
    with torch.no_grad():
        hidden = run.network.hidden(inputs)
        assert torch.equal(hidden, small.hidden(inputs))
    gram = (hidden.T @ hidden).double()
    ridge = 0.6 * gram.trace() / 24 * torch.eye(24, dtype=torch.float64)
    expected = small.head.weight() + torch.linalg.solve(gram + ridge, ridge @ first.T).T
    assert torch.linalg.norm(run.network.head.weight() - expected) < 0.05 * torch.linalg.norm(expected)


def test_neighbours_rank_where_they_gain_and_nowhere_else() -> None:
    """130 rooms are too many for 4 units, but 5 are not."""
    many, few = (probed(job_of(matrix_of(rooms(1_300, n))), config_of()) for n in (130, 5))
    assert (many.neighbours, few.neighbours) == (500, 0)
    assert many.after["recall@5"] > 1.25 * many.before["recall@5"]
    assert few.before["recall@5"] > 0.9
    assert (many.users, many.width, many.places) == (1_300, 4, 260)
    assert "500 neighbours rank too: recall@5" in str(many)
    assert "neighbours do not rank: recall@5" in str(few)


def test_nobody_votes_for_what_is_hidden() -> None:
    """Of items by chance nobody can know the hidden ones: a user's own row, if it voted whole, would name them all."""
    rng = np.random.default_rng(3)
    by_chance = [[f"{item:02}" for item in rng.permutation(60)[:8]] for _ in range(1_300)]
    found = probed(job_of(matrix_of(by_chance)), config_of())
    assert max(found.before["recall@5"], found.after["recall@5"]) < 0.2  # 5 of 53 is 0.09


def test_of_many_users_a_quarter_stands_in_with_a_quarter_of_the_units() -> None:
    found = probed(job_of(matrix_of(rooms(17_000, 500))), config_of(width=64))
    assert (found.users, found.width) == (4_250, 16)
    assert found.neighbours == 500


def test_few_users_try_nothing() -> None:
    found = probed(job_of(matrix_of(rooms(999, 100))), config_of())
    assert (found.neighbours, found.places) == (0, 0)
    assert (
        str(found) == "By default neighbours do not rank: fewer than 1,000 users have two items, too few to choose by."
    )


def test_a_run_keeps_what_was_found_and_does_not_try_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun(tmp_path, rooms(1_300, 130))
    run.train(quiet=True)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["neighbours"] == 500
    found = Probe.read(tmp_path / "run" / "probe.json")
    assert found is not None
    assert run.data.tried == str(found)
    monkeypatch.setattr(recommender, "probed", None)  # whoever calls it fails
    again = Run.open(tmp_path / "run")
    again.train(quiet=True, epochs=2)
    assert again.network.beside is not None
    assert again.data.tried == ""
    page = again.report().read_text(encoding="utf-8")
    assert str(found).replace("→", "") in page.replace("→", "")
    assert "votes of items" in page
    (tmp_path / "run" / "probe.json").write_text('{"neighbours": -5}')
    with pytest.raises(CheckpointError, match=r"probe\.json"):
        again.report()


def test_a_run_without_neighbours_is_what_it_is_when_they_are_refused(tmp_path: Path) -> None:
    """All pairs are trained on, from the same random numbers."""
    lists = rooms(1_300, 5)
    one, two = (begun(tmp_path, lists, out, width=8, **more) for out, more in (("a", {}), ("b", {"neighbours": 0})))
    for run in (one, two):
        run.train(quiet=True)
    assert one.config.neighbours == 0
    assert torch.equal(one.network.head.weight(), two.network.head.weight())
    assert (tmp_path / "a" / "probe.json").exists()
    assert not (tmp_path / "b" / "probe.json").exists()


def test_estimators_try_too() -> None:
    likes = rooms(1_300, 130)
    model = wh.Recommender(width=4, at=(1,), quiet=True).fit([row[:4] for row in likes])
    assert model.run_.config.neighbours == 500
    assert {name.partition(".")[0] for name in model.recommend([["3.1", "3.4"]], 5)[0][0]} == {"3"}


@pytest.mark.parametrize("job", ["demo", "next-item", "multilabel"])
@pytest.mark.parametrize("option", ["neighbours", "direct"])
def test_other_jobs_refuse_to_decide(job: str, option: str) -> None:
    with pytest.raises(ValueError, match=rf"`{option}` should be .*Found -1"):
        configure(job, out="runs/x", **{option: -1})


@pytest.mark.parametrize("option", ["batch_size", "epochs"])
def test_jobs_refuse_to_decide_what_the_next_item_does(option: str) -> None:
    message = rf"`{option}` should be at least 1 but for the job next-item.* Found 0 with job = 'recommender'"
    with pytest.raises(ValueError, match=message):
        configure("recommender", train="x", out="runs/x", **{option: 0})


def test_votes_for_those_that_are_asked_about_are_those_of_all() -> None:
    matrix = matrix_of(rooms(300, 20))
    seen, users, _ = hidden_pairs(matrix, 0)
    asked = seen[users]
    whole, some = UserVotes(seen, 9), UserVotes(seen, 9, asked=asked)
    for one, two in zip(whole.votes(asked), some.votes(asked), strict=True):
        assert one.nnz
        assert (one != two).nnz == 0
    assert some._nearest_items.nnz <= whole._nearest_items.nnz
