"""Classes that are near: as all cosines say it, whatever the head and however W is held; and unknown names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.head_table import TABLE, Row
from support.job_files import config_of
from torch.nn.functional import normalize

import widehead as wh
from widehead.errors import DataError
from widehead.heads import LinearHead
from widehead.runs import rows as module
from widehead.runs.rows import ids_of, similar_classes


def dense_twin(weight: torch.Tensor, ids: torch.Tensor, n: int) -> torch.Tensor:
    unit = normalize(weight.double())
    cosines = unit[ids] @ unit.T
    cosines[torch.arange(len(ids)), ids] = -torch.inf
    return cosines.topk(n, dim=1).values


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
@pytest.mark.parametrize("bias", [False, True])
def test_every_linear_head(row: Row, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 7)
    monkeypatch.setattr(module, "_QUERIES", 4)
    torch.manual_seed(0)
    head = row.make(8, 40, torch.float64, bias)
    if not isinstance(head, wh.ExactHead | LinearHead):
        pytest.skip("no row of weights for each class, which a run of it says")
    weight = torch.randn(40, 8, dtype=torch.float64)
    weight[5] = 0.0
    head.load_weight(weight, torch.randn(40, dtype=torch.float64) if bias else None)
    ids = torch.tensor([3, 39, 3, 5, 0, 17])
    found, scores = similar_classes(head, ids, 6)
    torch.testing.assert_close(scores, dense_twin(weight, ids, 6))
    unit = normalize(weight)
    torch.testing.assert_close((unit[ids][:, None] * unit[found]).sum(2), scores)
    assert not (found == ids[:, None]).any()
    everything, _ = similar_classes(head, ids, 1000)
    assert [sorted(row) for row in everything.tolist()] == [[j for j in range(40) if j != i] for i in ids.tolist()]


def test_steps_that_wait_are_in_the_rows() -> None:
    torch.manual_seed(0)
    head = wh.ExactHead(8, 300, wh.losses.SphericalSoftmax())
    optimizer = wh.optim.SGD(head, lr=0.1)
    for _ in range(5):
        head(torch.randn(16, 8), torch.randint(300, (16,))).backward()
        optimizer.step()
    ids = torch.arange(20)
    torch.testing.assert_close(similar_classes(head, ids, 3)[1], dense_twin(head.weight(), ids, 3).float())


@pytest.mark.parametrize(
    ("name", "near"),
    [("ocaen", "near it is 'ocean'"), ("SEA", "near it is 'sea'"), ("zebra", None), ("ship", "are 'ships', 'shops'")],
)
def test_unknown_names_are_told_with_those_that_are_near(name: str, near: str | None) -> None:
    classes = {"sea": 0, "ocean": 1, "ships": 2, "shops": 3, "café": 4}
    assert ids_of(["café", "sea"], classes).tolist() == [4, 0]
    with pytest.raises(DataError, match=f"5 classes. Found '{name}'") as told:
        ids_of(["sea", name], classes)
    assert (near is None) == ("near it" not in str(told.value))
    assert near is None or near in str(told.value)
    with pytest.raises(DataError, match=r"list of names. Found the text 'sea'"):
        ids_of("sea", classes)


@pytest.mark.parametrize("job", ["recommender", "word-embeddings", "multilabel", "language-model"])
def test_runs_of_every_job_name_them(tmp_path: Path, job: str) -> None:
    wh.Run.new(config_of(job, tmp_path, epochs=1)).train(quiet=True)
    run = wh.Run.open(tmp_path / "run")
    names = list(run.job.class_names[:2])
    one, two = run.similar(names, 3)
    assert [one.name, two.name] == names
    ids = torch.tensor([0, 1])
    torch.testing.assert_close(
        torch.tensor([one.scores, two.scores]), dense_twin(run.network.head.weight(), ids, 3).float()
    )
    assert len(next(run.similar(names[:1], 10_000)).classes) == len(run.job.class_names) - 1
    with pytest.raises(ValueError, match="`n` should be a whole number of at least 1"):
        run.similar(names, 0)
    with pytest.raises(DataError, match=r"Expected a list of names. Found the text"):
        run.similar(names[0])


def test_a_head_without_rows_is_told(tmp_path: Path) -> None:
    wh.Run.new(config_of("language-model", tmp_path, epochs=1, head="hierarchical", head_lr=None)).train(quiet=True)
    with pytest.raises(DataError, match=r"one row of weights for each class. Found the head hierarchical"):
        wh.Run.open(tmp_path / "run").similar(["w1"])
