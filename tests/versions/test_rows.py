"""Rows of V: in memory, in a file, in bfloat16. Whatever they are kept in, they read and write alike."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from widehead import mapped
from widehead.mapped import PAGE
from widehead.versions.rows import Rows, _rounded

D, WIDTH = 500, 6
VERSIONS = torch.zeros(D, dtype=torch.uint8)


def make(path: Path | None = None, storage_dtype: torch.dtype | None = None, num_rows: int = D) -> Rows:
    torch.manual_seed(0)
    rows = Rows.empty(num_rows, WIDTH, device="cpu", dtype=torch.float32, storage_dtype=storage_dtype, path=path)
    rows.draw(0.5)
    return rows


@pytest.mark.parametrize("num_rows", [1, 500, 200_000])
@pytest.mark.parametrize("storage_dtype", [None, torch.bfloat16])
def test_the_same_numbers_are_drawn_in_memory_and_in_a_file(
    tmp_path: Path, storage_dtype: torch.dtype | None, num_rows: int
) -> None:
    exact, rows = make(num_rows=num_rows), make(tmp_path / "rows", storage_dtype, num_rows)
    assert torch.equal(rows.stored, exact.stored.to(rows.stored.dtype))
    assert (tmp_path / "rows").stat().st_size == PAGE + rows.stored.numel() * rows.stored.element_size()


def test_a_file_holds_what_was_written(tmp_path: Path) -> None:
    rows = make(tmp_path / "rows")
    ids = torch.tensor([7, 0, 499])
    rows.write(VERSIONS, ids, torch.ones(3, WIDTH), 0)
    assert torch.equal(rows.gather(ids), torch.ones(3, WIDTH))
    read = torch.frombuffer(bytearray((tmp_path / "rows").read_bytes()[PAGE:]), dtype=torch.float32).view(D, WIDTH)
    assert torch.equal(read, rows.stored)
    assert torch.equal(torch.cat(list(rows.blocks())), rows.stored)


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("somebody's data")
    with pytest.raises(FileExistsError, match="delete it if nobody needs it"):
        make(tmp_path / "rows")
    assert (tmp_path / "rows").read_text() == "somebody's data"


def test_a_full_disk_is_an_error_when_the_file_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(mapped, "_reserve", refuse)
    with pytest.raises(OSError, match=r"16,096 bytes for .*rows could not be reserved: No space left on device"):
        make(tmp_path / "rows")
    assert list(tmp_path.iterdir()) == []


def test_without_the_systems_help_space_is_reserved_by_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    monkeypatch.setattr(mapped, "_ZEROS", 1000)
    rows = make(tmp_path / "rows")
    assert torch.equal(rows.stored, make().stored)
    if hasattr(os.stat_result, "st_blocks"):
        assert (tmp_path / "rows").stat().st_blocks * 512 >= rows.stored.numel() * 4


def test_wider_rows_take_the_place_of_the_file(tmp_path: Path) -> None:
    rows = make(tmp_path / "rows")
    before = rows.stored.clone()
    wide = rows.empty_like(width=2 * WIDTH)
    assert (wide.num_rows, wide.width, wide.path) == (D, 2 * WIDTH, tmp_path / "rows")
    assert [(p.name, p.stat().st_size) for p in tmp_path.iterdir()] == [("rows", PAGE + 2 * D * WIDTH * 4)]
    assert torch.equal(rows.stored, before)  # while they are needed


def test_rounding_gives_one_of_both_neighbours_and_the_number_itself_on_average() -> None:
    torch.manual_seed(0)
    exact = torch.tensor([0.1, -3.3, 1e-20, 257.0, -1e30, 0.0, 1.5])
    rounded = _rounded(exact.expand(40_000, -1))
    assert torch.equal(rounded, rounded.to(torch.bfloat16).float())
    unit = exact.abs() * 2.0**-7  # at most the distance of two neighbours
    assert bool(((rounded - exact).abs() <= unit).all())
    assert all(len(column.unique()) == 2 for column in rounded.T[:5])
    assert torch.equal(rounded[:, 5:], exact[5:].expand(40_000, -1))  # bfloat16 has them
    mean = rounded.double().mean(0)
    assert bool(((mean - exact.double()).abs() <= 4.0 * 0.5 * unit / 200.0).all())  # 4 standard errors of 40,000 draws


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_rounding_changed_is_what_the_stored_rows_say(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    rows = Rows(torch.zeros(D, WIDTH, dtype=torch.bfloat16), dtype)
    assert rows.is_narrow
    assert rows.take_rounding() is None
    exact = torch.randn(D, WIDTH, dtype=dtype)
    for ids in torch.arange(D).split(77):
        rows.write(VERSIONS, ids, exact[ids], 0)
    found = rows.take_rounding()
    assert found is not None
    before, after = exact.double(), rows.stored.double()
    assert torch.equal(rows.gather(torch.arange(D)), rows.stored.to(dtype))
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    assert torch.allclose(found[0], after.T @ after - before.T @ before, atol=tolerance * D)
    assert torch.allclose(found[1], (after - before).sum(0), atol=tolerance * D)
    assert rows.take_rounding() is None


def test_leaving_a_map_loses_nothing_and_other_tensors_are_left_alone(tmp_path: Path) -> None:
    numbers = torch.arange(100_000, dtype=torch.float32)
    (tmp_path / "numbers").write_bytes(numbers.numpy().tobytes())
    with (tmp_path / "numbers").open("rb") as file:
        opened = mapped.open_private(file).tensor(torch.float32, (100_000,))
    opened[5] = -1.0
    for tensor in (opened, opened[10:2000], torch.ones(3), opened[:0]):
        mapped.leave(tensor)
    assert opened[5] == -1.0
    opened[5] = 5.0
    assert torch.equal(opened, numbers)
    assert (tmp_path / "numbers").read_bytes() == numbers.numpy().tobytes()


def test_rows_of_a_file_larger_than_memory_are_asked_for_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("widehead.versions.rows._memory", lambda: 1000)
    asked: list[list[int]] = []
    ask = mapped.expect_rows
    monkeypatch.setattr(mapped, "expect_rows", lambda stored, ids: (asked.append(ids.tolist()), ask(stored, ids)))
    rows, ids = make(tmp_path / "rows"), torch.tensor([0, 499, 250])
    assert torch.equal(rows.gather(ids), make().gather(ids))
    assert asked == [[0, 499, 250]]
