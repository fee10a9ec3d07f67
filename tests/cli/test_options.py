"""The table of training options against TrainingConfig, and what the help shows."""

from __future__ import annotations

import dataclasses

import pytest
from support.cli_runs import JOBS, call

import widehead
from widehead.cli.console import printable, show_json
from widehead.cli.job_options import options_of
from widehead.jobs import JOBS as KINDS
from widehead.options import OPTIONS, TrainingConfig

# Fields that are no options of their own: the job is the command, FILE the argument, --out stands with the command.
ELSEWHERE = {"job", "train", "train_checksum", "out", "because"}


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")


def test_every_field_is_an_option() -> None:
    assert list(OPTIONS) == [f.name for f in dataclasses.fields(TrainingConfig)]
    assert {name for name, row in OPTIONS.items() if row.panel} == set(OPTIONS) - ELSEWHERE


@pytest.mark.parametrize("job", JOBS)
def test_every_default_of_a_job_belongs_to_an_option_of_it(job: str) -> None:
    assert set(KINDS[job].presets[0].values) <= {option.name for option in options_of(KINDS[job])}


@pytest.mark.parametrize("job", JOBS)
def test_help_shows_options_and_defaults(job: str) -> None:
    called = call("train", JOBS[job][0], "--help")
    assert called.code == 0
    assert called.err == ""
    for option in options_of(KINDS[job]):
        assert option.flag in called.out
    for text in ("Example", "Network", "--resume", f"[default: runs/{JOBS[job][0]}]"):
        assert text in called.out


@pytest.mark.parametrize("job", JOBS)
def test_help_shows_the_defaults_of_the_job(job: str) -> None:
    shown = call("train", JOBS[job][0], "--help").out
    defaults = KINDS[JOBS[job][0]].presets[0].values
    for name, value in defaults.items():
        if isinstance(value, float | str) or (isinstance(value, int) and not isinstance(value, bool)):
            entry = shown.partition(f"\n  --{name.replace('_', '-')} ")[2].partition("\n  --")[0]
            assert f"[default: {value}]" in " ".join(entry.split())


def test_help_shows_every_command() -> None:
    called = call("--help")
    assert called.code == 0
    for command in ("demo", "train", "evaluate", "predict", "export", "bench"):
        assert command in called.out
        assert call(command, "--help").code == 0


@pytest.mark.parametrize("group", [[], ["train"], ["bench"]])
def test_groups_without_a_command_show_their_help(group: list[str]) -> None:
    called = call(*group)
    assert called.code == 2
    assert "Commands" in called.out
    assert called.err == "widehead: error: a command is missing (see --help)\n"


def test_version() -> None:
    assert call("--version").out == f"widehead {widehead.__version__}\n"


def test_numbers_that_json_lacks_become_null(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"perplexity": float("inf"), "list": [1.0, float("nan")], "nested": {"x": -float("inf")}})
    assert capsys.readouterr().out == '{"perplexity": null, "list": [1.0, null], "nested": {"x": null}}\n'


def test_names_cannot_command_a_terminal() -> None:
    assert printable("a\x1b]0;title\x07b\nc") == "a�]0;title�b�c"
