"""What tests of the retrieved softmax share: a small head and its hidden layer."""

from __future__ import annotations

import itertools

import pytest
import torch

import widehead as wh

D, WIDTH, M = 300, 6, 5
TARGETS = [[3], [7, 7, 250], [], [0], [299, 3]]
MODES = [
    pytest.param(
        {"shared": shared, "tail_kind": kind, "index": index}, id=f"{index}-{kind}-{'one' if shared else 'each'}"
    )
    for shared, (kind, index) in itertools.product(
        (True, False), (("uniform", "exhaustive"), ("uniform", "ivf"), ("cells", "ivf"))
    )
]


def make(seed: int = 0, **options: object) -> wh.RetrievedSoftmaxHead:
    if options.get("index") == "ivf":
        pytest.importorskip("faiss", reason="needs FAISS: pip install 'widehead[retrieval]'")
    torch.manual_seed(seed)
    options = {"retrieved": 12, "tail": 16, "bias": True, "dtype": torch.float64, **options}
    head = wh.RetrievedSoftmaxHead(WIDTH, D, **options)  # type: ignore[arg-type]
    assert not head.is_full
    lengths = torch.linspace(3.0, 0.2, D, dtype=torch.float64)[:, None]
    head.load_weight(torch.randn(D, WIDTH, dtype=torch.float64) * lengths, torch.randn(D, dtype=torch.float64))
    return head


def hidden_layer(m: int = M) -> torch.Tensor:
    return torch.randn(m, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
