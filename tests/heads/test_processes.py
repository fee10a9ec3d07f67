"""Heads in data-parallel training: refused inside of the wrapper, and right as the page says. Two gloo processes."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from support.processes import ENVIRONMENT

import widehead as wh

COMMON = """
import json, sys
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
import widehead as wh

def made():
    torch.manual_seed(0)
    encoder = nn.Linear(5, 8).double()
    head = wh.ExactHead(8, 300, wh.losses.SphericalSoftmax(), dtype=torch.float64)
    return encoder, head

def batch(step):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 300, (8,), generator=generator)
"""

PROCESS = (
    COMMON
    + """
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
found = {}

class Model(nn.Module):
    def __init__(self, loss_inside):
        super().__init__()
        self.encoder, self.head = made()
        self.loss_inside = loss_inside
    def forward(self, x, y):
        return self.head(self.encoder(x), y) if self.loss_inside else self.encoder(x)

for loss_inside in (True, False):
    model = DistributedDataParallel(Model(loss_inside))
    optimizer = wh.optim.SGD(model.module.head, lr=0.1)
    weight, (x, y) = model.module.head.weight(), batch(rank)
    try:
        out = model(x, y)
        (out if loss_inside else model.module.head(out, y)).backward()
        optimizer.step()
        found[f"inside {loss_inside}"] = "no error"
    except RuntimeError as error:
        found[f"inside {loss_inside}"] = str(error)
    assert torch.equal(weight, model.module.head.weight())
model.eval()
with torch.no_grad():
    model.module.head(model(x, y), y)  # reading is not refused
model.train().requires_grad_(False)
model.module.encoder.requires_grad_(True)
model.module.head(model(x, y), y).backward()  # nor is a frozen head
del model, optimizer

encoder, head = made()
"""
    + "\n# -- the page's\n{page}\n# --\n"
    + """
for step in range(5):
    x, y = (part[4 * rank : 4 * rank + 4] for part in batch(step))
    train(x, y)
torch.save((encoder.module.weight.detach(), head.weight()), f"{folder}/{rank}.pt")

from torch.distributed.fsdp import fully_shard
model = Model(True)
fully_shard(model, mesh=torch.distributed.device_mesh.init_device_mesh("cpu", (2,)))
wh.optim.SGD(model.head, lr=0.1)
try:
    model(*batch(rank))
except RuntimeError as error:
    found["inside FSDP"] = str(error)

encoder, head = made()
encoder = fully_shard(encoder, mesh=torch.distributed.device_mesh.init_device_mesh("cpu", (2,)))
optimizers = [wh.optim.Together(torch.optim.AdamW(encoder.parameters(), lr=1e-3), wh.optim.Newton(head))]
optimizers[0].max_grad_norm = 0.05
for step in range(5):
    x, y = (part[4 * rank : 4 * rank + 4] for part in batch(step))
    train(x, y)
torch.save((encoder.weight.full_tensor().detach(), head.weight()), f"{folder}/{rank}-fsdp.pt")
json.dump(found, open(f"{folder}/{rank}.json", "w"))
dist.destroy_process_group()
"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left: errors as JSON, weights of encoder and head."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "process.py").write_text(PROCESS.replace("{page}", code_of_the_page()), encoding="utf-8")
    command = [sys.executable, str(folder / "process.py")]
    running = [
        subprocess.Popen([*command, str(rank), str(folder)], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    return folder


def code_of_the_page() -> str:
    page = (Path(__file__).parents[2] / "docs" / "howto" / "stacks.md").read_text(encoding="utf-8")
    section = page.partition("## Several processes")[2]
    return textwrap.dedent(section.partition("```py\n")[2].partition("```")[0])


@pytest.mark.long
def test_a_head_inside_is_refused_with_the_way_out(folder: Path) -> None:
    for rank in range(2):
        found = json.loads((folder / f"{rank}.json").read_text())
        for name, message in found.items():
            assert f"outside of {'FSDP' if 'FSDP' in name else 'DistributedDataParallel'}" in message
            assert "in 2 processes. Wrap the encoder alone" in message
        assert len(found) == 3


@pytest.mark.long
@pytest.mark.parametrize(("suffix", "clip"), [("", None), ("-fsdp", 0.05)], ids=["DDP", "FSDP2, clipped"])
def test_what_the_page_says_is_the_training_of_one_process(folder: Path, suffix: str, clip: float | None) -> None:
    (first, head), (second, other) = (torch.load(folder / f"{rank}{suffix}.pt") for rank in range(2))
    assert torch.equal(first, second)
    assert torch.equal(head, other)
    namespace: dict[str, object] = {}
    exec(COMMON, namespace)
    encoder, alone = namespace["made"]()  # type: ignore[operator]
    optimizers = torch.optim.AdamW(encoder.parameters(), lr=1e-3), wh.optim.Newton(alone)
    for step in range(5):
        x, y = namespace["batch"](step)  # type: ignore[operator]
        for optimizer in optimizers:
            optimizer.zero_grad()
        alone(encoder(x), y).backward()
        if clip is not None:
            assert wh.optim.clip_grad_norm_(encoder.parameters(), alone, clip) > clip
        for optimizer in optimizers:
            optimizer.step()
    assert torch.allclose(first, encoder.weight, rtol=1e-9, atol=1e-12)
    assert torch.allclose(head, alone.weight(), rtol=1e-9, atol=1e-12)
