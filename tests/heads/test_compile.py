"""torch.compile of a model whose last layer is a head: the encoder is one graph, the head is called as it is."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from support.head_table import RAGGED, ROWS, TABLE, WIDTH, D, M, Row, make
from torch import Tensor, nn

import widehead as wh


def padded(lists: list[list[int]]) -> Tensor:
    table = torch.full((len(lists), 3), -100)
    for b, ids in enumerate(lists):
        table[b, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
    return table


class Model(nn.Module):
    def __init__(self, head: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(5, WIDTH), nn.Tanh())
        self.head = head

    def forward(self, x: Tensor, targets: Any) -> Tensor:
        loss: Tensor = self.head(self.encoder(x), targets)
        return loss


FEW = pytest.mark.parametrize(
    "row", [row for row in TABLE if row.name in ("exact", "sampled", "retrieved", "adaptive")], ids=lambda row: row.name
)
OTHERS = [[5], [1, 2], [], [7, 8, 9], [3], [4]]


@FEW
@pytest.mark.parametrize("form", [wh.SparseTargets.from_lists, padded], ids=["SparseTargets", "tensor"])
def test_a_model_is_one_graph_around_its_head(row: Row, form: Any) -> None:
    torch._dynamo.reset()
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    model = Model(make(row, torch.float32))
    _optimizer = wh.optim.SGD(model.head) if isinstance(model.head, wh.ExactHead) else None  # takes what passes leave
    compiled, x = torch.compile(model, backend=backend), torch.randn(M, 5)
    for targets in (form(RAGGED), form(OTHERS)):
        found, gradients = [], []
        for one in (compiled, model):
            torch.manual_seed(1)
            model.zero_grad()
            found.append(one(x, targets))
            found[-1].backward()
            gradients.append(model.encoder[0].weight.grad.clone())
        assert torch.equal(*found)
        assert torch.equal(*gradients)
    assert len(graphs) == 1


@FEW
def test_reading_is_no_graph_at_all(row: Row) -> None:
    torch._dynamo.reset()
    graphs: list[torch.fx.GraphModule] = []
    head, hidden = make(row, torch.float32), torch.randn(M, WIDTH)

    def read(hidden: Tensor) -> tuple[Tensor, Tensor]:
        return head.top_k(hidden, 3)[1], head.scores(hidden, torch.zeros(M, dtype=torch.int64))

    compiled = torch.compile(read, backend=lambda graph, _: graphs.append(graph) or graph)
    assert all(torch.equal(a, b) for a, b in zip(compiled(hidden), read(hidden), strict=True))
    assert not any("matmul" in str(node.target) for graph in graphs for node in graph.graph.nodes)


def test_training_goes_on_as_without_the_compiler() -> None:
    torch._dynamo.reset()
    found = []
    for backend in (None, "aot_eager"):
        model = Model(make_exact())
        run = model if backend is None else torch.compile(model, backend=backend)
        optimizers = torch.optim.SGD(model.encoder.parameters(), lr=0.1), wh.optim.Newton(model.head)
        generator = torch.Generator().manual_seed(0)
        for _ in range(5):
            x = torch.randn(M, 5, generator=generator)
            run(x, torch.randint(0, D, (M,), generator=generator)).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        found.append((model.encoder[0].weight.detach(), model.head.weight()))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*found, strict=True))


def make_exact() -> wh.ExactHead:
    torch.manual_seed(1)
    return wh.ExactHead(WIDTH, D, wh.losses.SphericalSoftmax())


@pytest.mark.slow
@ROWS
def test_inductor_takes_the_encoder(row: Row) -> None:
    torch._dynamo.reset()
    model = Model(make(row, torch.float32))
    compiled, x = torch.compile(model), torch.randn(M, 5)
    torch.manual_seed(1)
    expected = model(x, RAGGED)
    torch.manual_seed(1)
    assert torch.allclose(compiled(x, RAGGED), expected, atol=1e-6)


def test_who_compiles_nothing_does_not_wait_for_the_compiler() -> None:
    program = (
        "import sys, torch, widehead as wh\n"
        "head = wh.ExactHead(4, 30, wh.losses.SphericalSoftmax())\n"
        "head(torch.randn(2, 4), [[1], [2]]).backward()\n"
        "head.top_k(torch.randn(2, 4), 3)\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
