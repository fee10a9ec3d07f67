"""Optimisers that leave the compiler alone: nothing imports it, and who has it gets torch's own methods."""

from __future__ import annotations

import functools
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from widehead.optim.light import LightOptimizer

METHODS: dict[str, tuple[Any, ...]] = {
    "add_param_group": ({"params": []},),
    "zero_grad": (True,),
    "state_dict": (),
    "load_state_dict": ({},),
}


def test_steps_and_states_do_not_import_the_compiler() -> None:
    program = (
        "import sys, torch, widehead as wh\n"
        "from widehead.jobs.logit import Told, fitted\n"
        "import numpy as np\n"
        "exact, sampled = wh.ExactHead(4, 30, wh.losses.SphericalSoftmax()), wh.SampledSoftmaxHead(4, 30)\n"
        "table = torch.nn.Embedding(9, 4, sparse=True)\n"
        "made = [wh.optim.Newton(exact), wh.optim.RowAdagrad(sampled.parameters(), lr=0.1),\n"
        "        wh.optim.RowAdam(table.parameters(), lr=0.1)]\n"
        "for optimizer in made:\n"
        "    optimizer.zero_grad()\n"
        "hidden = table(torch.tensor([1, 2]))\n"
        "(exact(hidden, [[1], [2]]) + sampled(hidden, [[1], [2]])).backward()\n"
        "for optimizer in made:\n"
        "    optimizer.step()\n"
        "    optimizer.load_state_dict(optimizer.state_dict())\n"
        "rows, items = np.array([0, 0]), np.array([3, 4])\n"
        "fitted(Told(1, rows, items, np.eye(2, dtype=np.float32)), np.array([True, False]))\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_who_has_the_compiler_gets_methods_of_torch(name: str, is_there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def plain(*arguments: Any, **options: Any) -> Any:
        called.append((arguments[1:], options))
        return {}

    @functools.wraps(plain)
    def decorated(*arguments: Any, **options: Any) -> Any:
        called.append("decorated")
        return plain(*arguments, **options)

    weights = torch.zeros(2, requires_grad=True)
    made = type("Made", (LightOptimizer,), {})([weights], {})
    monkeypatch.setattr(torch.optim.Optimizer, name, decorated)
    if is_there:
        monkeypatch.setitem(sys.modules, "torch._dynamo", ModuleType("torch._dynamo"))
    else:
        monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    getattr(made, name)(*METHODS[name])
    assert called == ["decorated"] * is_there + [(METHODS[name], {})]
