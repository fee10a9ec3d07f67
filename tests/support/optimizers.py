"""Every optimiser of exact heads with options, and its dense float64 twin with the same ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import widehead as wh
from support import reference
from support.properties import Batch, Row


@dataclass(frozen=True)
class Kind:
    """An optimiser with options, and its twin with the same ones."""

    name: str
    ours: Callable[..., torch.optim.Optimizer]
    dense: type[Any]
    options: dict[str, Any]

    def make(self, head: wh.ExactHead | list[wh.ExactHead], **changes: Any) -> torch.optim.Optimizer:
        return self.ours(head, **{**self.options, **changes})

    def twin(self, weight: torch.Tensor) -> Any:
        return self.dense(weight, **self.options)


SGD, NEWTON, SHAMPOO, MUON = wh.optim.SGD, wh.optim.Newton, wh.optim.Shampoo, wh.optim.Muon
PLAIN = [
    Kind("sgd", SGD, reference.DenseSGD, {"lr": 0.03}),
    Kind("decay and clipping", SGD, reference.DenseSGD, {"lr": 0.03, "weight_decay": 0.1, "max_grad_norm": 0.5}),
]
"""Plain SGD, which other tables have with other options."""

KINDS = [
    Kind("heavy ball", SGD, reference.DenseSGD, {"lr": 0.02, "momentum": 0.9}),
    Kind("nesterov", SGD, reference.DenseSGD, {"lr": 0.02, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01}),
    Kind("decoupled", SGD, reference.DenseSGD, {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1, "decoupled": True}),
    Kind("newton", NEWTON, reference.DenseNewton, {"lr": 0.5, "damping": 0.05, "decay": 0.9, "refresh_every": 4}),
    Kind(
        "newton, decay",
        NEWTON,
        reference.DenseNewton,
        {"lr": 0.3, "damping": 0.1, "decay": 0.95, "refresh_every": 1, "weight_decay": 0.01},
    ),
    Kind("shampoo", SHAMPOO, reference.DenseShampoo, {"lr": 0.01, "damping": 0.1, "decay": 0.9, "refresh_every": 3}),
    Kind("muon", MUON, reference.DenseMuon, {"lr": 0.01, "damping": 0.1, "weight_decay": 0.02}),
]


def partials(row: Row, weight: torch.Tensor, b: Batch, scale: float = 1.0) -> tuple[torch.Tensor, ...]:
    """∂L/∂O (m, D), |λ| (m,) and the curvature of targets (m, D) of the mean loss, all from dense outputs."""
    loss, targets, num_classes = row.make(), row.make().prepare(b.targets()), len(weight)
    outputs = b.hidden @ weight.T
    at = (targets.example_ids, targets.class_ids)
    q, s, a = ((outputs**2).sum(1), outputs.sum(1), outputs[at])
    leaves = [x.clone().requires_grad_() for x in (q, s, a)]
    counted = (targets.counts > 0).double() if loss.needs_targets else torch.ones(len(b.ids), dtype=torch.float64)
    share = scale * counted / counted.sum().clamp_min(1.0)
    total = (loss(*leaves, targets, num_classes) * share).sum()
    by_q, by_s, by_a = (
        torch.zeros_like(x) if g is None else g
        for x, g in zip(leaves, torch.autograd.grad(total, leaves, allow_unused=True), strict=True)
    )
    t = 2 * by_q[:, None] * outputs + by_s[:, None]
    t.index_put_(at, by_a, accumulate=True)
    curvature = loss.target_curvature(q, s, a, targets, num_classes, 0.01) * share[targets.example_ids]
    dense = torch.zeros_like(t).index_put_(at, curvature, accumulate=True)
    return t, (2 * by_q).abs(), dense
