"""Bad input, command by command: one line that says what and where, exit code 2, and nothing left behind."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cli_runs import FILES, JOBS, assert_refused, call, tree

Trained = dict[str, tuple[Path, object]]

TEXT = "u1 a b c d e\nu2 c d e\n" * 50


def _missing(path: Path) -> str:
    return "there is no such file"


def _folder(path: Path) -> str:
    path.mkdir()
    return "expected a file. Found a folder"


def _below_a_file(path: Path) -> str:
    path.parent.rmdir()
    path.parent.write_text("a file")
    return "cannot be read (Not a directory)"


def _empty(path: Path) -> str:
    path.touch()
    return "the file is empty"


def _binary(path: Path) -> str:
    path.write_bytes(b"\x7fELF\x02\x01\x00\x00" + bytes(500))
    return "this is a binary file"


def _latin(path: Path) -> str:
    path.write_bytes("u1 caf\xe9 na\xefve\n".encode("latin-1"))
    return "line 1: expected UTF-8 text"


def _truncated_gzip(path: Path) -> str:
    path.write_bytes(gzip.compress(TEXT.encode())[:-12])
    return "gzip data are truncated"


def _corrupt_gzip(path: Path) -> str:
    data = bytearray(gzip.compress(TEXT.encode()))
    data[25] ^= 0xFF
    path.write_bytes(bytes(data))
    return "gzip data are corrupt"


ANY_FILE: list[Callable[[Path], str]] = [
    _missing,
    _folder,
    _below_a_file,
    _empty,
    _binary,
    _latin,
    _truncated_gzip,
    _corrupt_gzip,
]

# What is wrong with the content, for each kind of data: text and what the line says.
CONTENT: dict[str, list[tuple[str, str]]] = {
    "recommender": [
        ("u1 a b\nu2\tc\n", "line 2: expected 'user item item …'"),
        ("u1\nu2\n", "expected pairs of users and items"),
        ("user,item,rating\nu1,a,5\nu2,b,much\n", "line 3: expected a rating that is a finite number. Found 'much'"),
        ("user\titem\nu1\n", "line 2"),
    ],
    "next-item": [
        ("a b\nc\td\n", "line 2: expected 'item item item …' separated by spaces"),
        ("a\n\nb\n", "expected sequences of two items or more. Found none among 3"),
        ("user,item,time\nu,a,5\nu,b,soon\n", "line 3: expected a time"),
    ],
    "language-model": [("... !!!\n--\n", "expected words. Found none")],
    "word-embeddings": [("... !!!\n--\n", "expected words. Found none")],
    "multilabel": [
        ("just words\n", "line 1: expected the header"),
        ("L1\tgood text\nno tab here\n", "line 2: expected 'label label<tab>text'. Found no tab"),
        ("2 5 3\n0 1:0.5\n7 2:1\n", "line 3: expected a label id in [0, 3). Found '7'"),
        ("2 5 3\n0 1:0.5\n1 99999999999:1\n", "line 3: expected a feature id in [0, 5). Found '99999999999'"),
        ("2 5 3\n0 1:0.5\n", "expected 2 rows, as the header says. Found 1"),
        ("1 5 3\n0 1:nan\n", "line 2: expected a finite value"),
    ],
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a bad file goes: alone in its folder, so that the folder can become a file."""
    (tmp_path / "bad").mkdir()
    return tmp_path / "bad" / "file.txt"


def refused_everywhere(place: Path, what: str, calls: Iterator[list[str | Path]]) -> None:
    for arguments in calls:
        before = tree(place.parents[1])
        assert_refused(call(*arguments), what, place.name if what != "there is no such file" else str(place))
        assert tree(place.parents[1]) == before


def training_calls(job: str, place: Path) -> Iterator[list[str | Path]]:
    out = place.parents[1] / "new" / "run"
    yield ["train", *JOBS[job], place, "--out", out]
    yield ["train", *JOBS[job], place, "--out", out, "--json"]


def using_calls(job: str, place: Path, trained: Trained) -> Iterator[list[str | Path]]:
    folder = trained[job][0]
    out = place.parents[1] / "new" / "run"
    yield ["train", *JOBS[job], folder / "train.txt", "--test", place, "--out", out, "--at", "2"]
    yield ["evaluate", folder / "run", "--test", place, "--json"]
    yield ["predict", folder / "run", place]
    yield ["predict", folder / "run", place, "--json"]


@pytest.mark.parametrize("bad", ANY_FILE, ids=lambda f: f.__name__)
@pytest.mark.parametrize("job", FILES)
def test_files_that_cannot_be_read(job: str, bad: Callable[[Path], str], place: Path, trained: Trained) -> None:
    what = bad(place)
    refused_everywhere(place, what, training_calls(job, place))
    refused_everywhere(place, what, using_calls(job, place, trained))


@pytest.mark.parametrize(("job", "content", "what"), [(job, c, w) for job in CONTENT for c, w in CONTENT[job]])
def test_files_of_another_format(job: str, content: str, what: str, place: Path) -> None:
    place.write_text(content)
    refused_everywhere(place, what, training_calls(job, place))


def test_a_test_file_of_another_kind(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "xc.txt").write_text("1 5 3\n0 1:0.5\n")
    called = call("evaluate", trained["multilabel"][0] / "run", "--test", tmp_path / "xc.txt")
    assert_refused(called, "expected label<tab>text", "xc.txt")


@pytest.mark.parametrize("bad", [_missing, _empty, _binary], ids=lambda f: f.__name__)
def test_files_of_label_names(bad: Callable[[Path], str], place: Path, trained: Trained) -> None:
    what = bad(place)
    xc = place.parents[1] / "train.txt"
    xc.write_text("2 5 3\n0 1:0.5\n1 2:1\n")
    out = place.parents[1] / "run"
    refused_everywhere(place, what, iter([["train", "multilabel", xc, "--labels", place, "--out", out]]))


def test_standard_input_is_named(trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with (tmp_path / "empty").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert_refused(call("predict", trained["recommender"][0] / "run", "-"), "standard input: ", "empty")


# -- run folders ------------------------------------------------------------------------------------------------------


def _no_folder(run: Path) -> str:
    shutil.rmtree(run)
    return "Found no config.json"


def _a_file(run: Path) -> str:
    shutil.rmtree(run)
    run.write_text("a file")
    return "Found no config.json"


def _empty_folder(run: Path) -> str:
    shutil.rmtree(run)
    run.mkdir()
    return "Found no config.json"


def _foreign(run: Path) -> str:
    (run / "config.json").write_text('{"model_type": "bert", "hidden_size": 768}')
    return "config.json"


def _no_json(run: Path) -> str:
    (run / "config.json").write_text("width: 12\n")
    return "should hold JSON"


def _binary_config(run: Path) -> str:
    (run / "config.json").write_bytes(b"\xff\x00\x80")
    return "config.json"


def _other_values(run: Path) -> str:
    path = run / "config.json"
    path.write_text(path.read_text().replace('"width": 8', '"width": "eight"'))
    return "width"


def _another_width(run: Path) -> str:
    path = run / "config.json"
    path.write_text(path.read_text().replace('"width": 8', '"width": 9'))
    return "last.safetensors"


def _cut_checkpoint(run: Path) -> str:
    path = run / "checkpoints" / "last.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    return "last.safetensors"


def _foreign_checkpoint(run: Path) -> str:
    (run / "checkpoints" / "last.safetensors").write_bytes(b"\x80\x04\x95 a pickle")
    return "should be a checkpoint of widehead"


def _no_vocabulary(run: Path) -> str:
    (run / "vocabularies" / "items.txt").unlink()
    return "items.txt"


FOLDERS: list[Callable[[Path], str]] = [
    _no_folder,
    _a_file,
    _empty_folder,
    _foreign,
    _no_json,
    _binary_config,
    _other_values,
    _another_width,
    _cut_checkpoint,
    _foreign_checkpoint,
    _no_vocabulary,
]
USES: dict[str, list[str]] = {
    "evaluate": ["evaluate", "RUN", "--test", "DATA/test.txt"],
    "predict": ["predict", "RUN", "DATA/input.txt"],
    "export": ["export", "RUN", "--format", "torch", "--output", "NEW"],
    "resume": ["train", "recommender", "--out", "RUN", "--resume", "--epochs", "14", "--quiet"],
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("damage", FOLDERS, ids=lambda f: f.__name__)
def test_run_folders_that_are_none(use: str, damage: Callable[[Path], str], trained: Trained, tmp_path: Path) -> None:
    if use == "resume" and damage is _no_vocabulary:
        pytest.skip("resuming reads the data again and writes the vocabulary anew")
    data = trained["recommender"][0]
    run = tmp_path / "run"
    shutil.copytree(data / "run", run)
    what = damage(run)
    places = {"RUN": str(run), "NEW": str(tmp_path / "new.pt")}
    arguments = [places.get(word, word.replace("DATA", str(data))) for word in USES[use]]
    before = tree(tmp_path)
    before.pop("run/config.json", None)  # resuming may note the new limit before it finds the damage
    assert_refused(call(*arguments), what)
    after = tree(tmp_path)
    after.pop("run/config.json", None)
    assert after == before


def test_a_missing_best_checkpoint(trained: Trained) -> None:
    run = trained["recommender"][0] / "run"
    assert_refused(call("evaluate", run, "--best"), "There is no checkpoint", "best.safetensors")


# -- where things go --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "what"),
    [
        ("a_file", "should be a folder. Found a file"),
        ("a_file/run", "a_file is a file"),
        ("a_file/below/run", "a_file is a file"),
        ("full", "Found files in it: resume that run, or choose another folder"),
        ("/dev/full", "should be a folder. Found a file"),
        ("/dev/full/run", "/dev/full is a file"),
    ],
)
def test_run_folders_that_cannot_be_made(out: str, what: str, tmp_path: Path, trained: Trained) -> None:
    (tmp_path / "a_file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    before = tree(tmp_path)
    data = trained["recommender"][0] / "train.txt"
    assert_refused(call("train", "recommender", data, "--out", tmp_path / out), what)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("to", ["torch", "safetensors", "word2vec"])
@pytest.mark.parametrize(
    ("output", "what"),
    [
        ("a_file/weights", "Not a directory"),
        ("nowhere/weights", "No such file or directory"),
        ("a_folder", "should be a file. Found a folder"),
        ("/dev/full", "should be a file. Found a device"),
    ],
)
def test_outputs_that_cannot_be_written(to: str, output: str, what: str, tmp_path: Path, trained: Trained) -> None:
    (tmp_path / "a_file").write_text("mine")
    (tmp_path / "a_folder").mkdir()
    before = tree(tmp_path)
    run = trained["recommender"][0] / "run"
    assert_refused(call("export", run, "--format", to, "--output", tmp_path / output), what, output)
    assert tree(tmp_path) == before
    assert Path("/dev/full").is_char_device()
