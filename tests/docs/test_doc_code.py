"""What the pages show, runs: Python in ```python blocks, and commands in ```console blocks, page by page."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
import torch
from support.cli_runs import without_curves
from support.pages import PAGES, PROJECT, Block, blocks, commands, name_of

from widehead.cli import main

README = PROJECT / "README.md"
RUNNABLE = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]
WITH_PACKAGES = [(page, i) for page in PAGES for i, block in enumerate(blocks(page)) if block.packages]


def test_there_are_pages_with_code() -> None:
    assert len(RUNNABLE) >= 12


@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the page, in an empty folder, in one namespace; without what needs other packages."""
    monkeypatch.chdir(tmp_path)
    run(page, [block for block in blocks(page) if not block.packages])


@pytest.mark.parametrize(("page", "number"), WITH_PACKAGES, ids=lambda value: str(getattr(value, "stem", value)))
def test_code_that_needs_packages_runs(
    page: Path, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After what stands before it and needs no others."""
    *before, block = blocks(page)[: number + 1]
    for package in block.packages:
        pytest.importorskip(package, reason="make test-stacks installs it")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database of it needs more packages
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "mlruns"))
    run(page, [*(other for other in before if set(other.packages) <= set(block.packages)), block])


def run(page: Path, chosen: list[Block]) -> None:
    torch.manual_seed(0)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in chosen:
        if block.language == "python":
            # Blank lines before it, so that a traceback names the line of the page.
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec", dont_inherit=True)
            exec(code, namespace)
        elif block.language == "console":
            for command in commands(block.text):
                assert exit_code(command) == 0, command


def test_the_example_of_readme_prints_what_readme_says() -> None:
    (example,) = [number for number, block in enumerate(blocks(README)) if block.language == "python"]
    code, output = blocks(README)[example : example + 2]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code.text, str(README), "exec", dont_inherit=True), {"__name__": "__main__"})
    assert printed.getvalue() == output.text


def test_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 80


def exit_code(command: list[str]) -> object:
    silent = io.StringIO()
    with (
        contextlib.redirect_stdout(silent),
        contextlib.redirect_stderr(silent),
        without_curves(),
        pytest.raises(SystemExit) as ended,
    ):
        main(command)
    return ended.value.code
