"""Least squares with a badly conditioned hidden layer: how many steps Newton needs, and how many SGD at its best lr.

    python recipes/ill_conditioned.py [--most 2000]

D = 50,000 outputs, d = 128 hidden units, 20,000 examples in 128 groups; the Hessian has condition number 10^4. Each
group has three classes of its own, and each example a fourth one at random, which nobody can predict. The optimum is
computed densely in float64; the figure is the number of steps (batches of 256) until the loss over all examples is
within 1 % of it. Appends one line to recipes/results/ill-conditioned.jsonl.
"""

from __future__ import annotations

import argparse
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from provenance import commit
from torch import Tensor

import widehead as wh
from widehead.bench.measure import hardware
from widehead.errors import UnstableStepWarning

RESULTS = Path(__file__).resolve().parent / "results"
CLASSES, WIDTH, EXAMPLES, BATCH = 50_000, 128, 20_000, 256
GRID = (0.1, 0.2, 0.4, 0.6, 0.8)
CHECK_EVERY = 5


@dataclass
class Problem:
    """Hidden layer (N, d), targets, and what the loss over all examples needs: C = HᵀH/N, B = YᵀH/N, ‖Y‖²/N."""

    hidden: Tensor
    targets: wh.SparseTargets
    moment: Tensor
    cross: Tensor
    size: float

    @classmethod
    def draw(cls, seed: int = 0) -> Problem:
        """Groups at orthogonal points, stretched along random axes over two decades."""
        generator = torch.Generator().manual_seed(seed)
        axes = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))[0]
        points = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))[0] * torch.logspace(0, -2, WIDTH)
        group = torch.arange(EXAMPLES) % WIDTH
        hidden = (WIDTH**0.5 * points @ axes.T)[group]
        own = torch.randint(0, CLASSES, (WIDTH, 3), generator=generator)[group]
        noise = torch.randint(0, CLASSES, (EXAMPLES, 1), generator=generator)
        targets = wh.SparseTargets.from_ids(torch.cat([own, noise], dim=1)).coalesced()
        precise = hidden.double() / EXAMPLES**0.5
        cross = torch.zeros(CLASSES, WIDTH, dtype=torch.float64)
        values = targets.values_or_ones(torch.float64)
        cross.index_add_(0, targets.class_ids, values[:, None] * hidden.double()[targets.example_ids] / EXAMPLES)
        return cls(hidden, targets, precise.T @ precise, cross, float((values**2).sum()) / EXAMPLES)

    @property
    def condition(self) -> float:
        """Condition number of the Hessian."""
        values = torch.linalg.eigvalsh(self.moment)
        return float(values[-1] / values[0])

    def loss(self, weight: Tensor) -> float:
        """Mean squared error over all examples."""
        weight = weight.double()
        return float(((weight @ self.moment) * weight).sum() - 2.0 * (weight * self.cross).sum()) + self.size

    def optimum(self) -> float:
        """The smallest loss there is."""
        return self.loss(torch.linalg.solve(self.moment, self.cross.T).T)


def steps_needed(problem: Problem, kind: str, options: dict[str, Any], most: int) -> dict[str, Any]:
    """Train from W = 0 until the loss is within 1 % of the optimum, or for ``most`` steps."""
    head = wh.ExactHead(WIDTH, CLASSES, wh.losses.SquaredError())
    head.load_weight(torch.zeros(CLASSES, WIDTH))
    optimizer = getattr(wh.optim, kind)(head, **options)
    generator = torch.Generator().manual_seed(1)
    best, goal, step = problem.optimum(), 1.01 * problem.optimum(), 0
    loss = problem.size
    check = CHECK_EVERY
    while step < most and loss > goal:
        rows = torch.randint(0, EXAMPLES, (BATCH,), generator=generator)
        batch_loss = head(problem.hidden[rows], problem.targets.select(rows))
        optimizer.zero_grad()
        batch_loss.backward()
        optimizer.step()
        step += 1
        if step >= check:  # ever more seldom: the check is dense
            loss = problem.loss(head.weight())
            check = step + max(CHECK_EVERY, step // 50)
            if loss > 10 * problem.size:
                break
    audit = head.audit()
    return {
        "optimizer": kind,
        **options,
        "reached": loss <= goal,
        "steps": step,
        "loss_over_optimum": loss / best,
        "closes_per_step": audit.closes / step,
        "drift": audit.gram,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=2_000, help="steps after which SGD is given up")
    options = parser.parse_args()
    warnings.simplefilter("ignore", UnstableStepWarning)
    problem = Problem.draw()
    best = problem.optimum()
    print(f"condition number {problem.condition:.3g}, optimal loss {best:.4f}, of W = 0 {problem.size:.4f}")
    runs = [
        ("Newton", {"lr": 1.0, "decay": 1.0, "damping": 1e-4}),  # recursive least squares
        ("Newton", {"lr": 1.0, "decay": 0.99, "damping": 1e-4}),
        ("SGD", {"lr": 0.05, "momentum": 0.9}),
        *(("SGD", {"lr": lr}) for lr in GRID),
    ]
    common = {"recipe": "ill_conditioned", "commit": commit(), **hardware(torch.device("cpu"))}
    found = []
    for kind, chosen in runs:
        record = steps_needed(problem, kind, chosen, options.most)
        found.append(record)
        print(json.dumps(record), flush=True)
    with (RESULTS / "ill-conditioned.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({**common, "runs": found}) + "\n")


if __name__ == "__main__":
    main()
