"""How long one training step of an output layer takes, method beside method in one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch

from widehead.bench.measure import available_memory, hardware, interleaved, sgemm_rate
from widehead.bench.methods import METHODS, Method
from widehead.bench.problem import OutputLayerProblem

__all__ = ["compare_step"]

_SGEMM = "sgemm"
_SGEMM_SIZE = 1024


def compare_step(
    classes: int,
    width: int,
    batch: int,
    targets_per_example: int = 1,
    *,
    methods: Sequence[str] = ("exact", "dense"),
    rounds: int = 5,
    device: str = "cpu",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Time one step of each method on the same random problem, interleaved.

    A step is everything from the hidden layer on: loss, gradient to the encoder, update of all D × d weights.

    Args:
        classes, width, batch, targets_per_example: D, d, m, K.
        methods: names of `widehead.bench.methods.METHODS`. rounds: turns that each method gets.

    Returns:
        One row a method: "method", "seconds" (median of a step), "steps" (how many were timed), "ratio_to_dense" and
        "ratio_to_full" (how many times faster than dense, and than the full softmax head; None without them),
        "ratio_to_exact" (how many times as long as a step of the exact head with plain SGD; None without it),
        "ratio_to_floor" (how many times slower than 14d²m flops at the float32 matrix-product rate measured in the same
        run), the problem's sizes and the hardware.

    Raises:
        ValueError: an unknown method, a size below 1, or a dense layer that does not fit in memory.
    """
    problem = OutputLayerProblem(classes, width, batch, targets_per_example)
    unknown = [name for name in methods if name not in METHODS]
    if unknown or not methods:
        raise ValueError(f"Parameter `methods` should name some of {', '.join(METHODS)}. Found {list(methods)}.")
    place = torch.device(device)
    if {"dense", "full"} & set(methods) and place.type == "cpu":
        _check_memory(problem)
    generator = torch.Generator(device=place).manual_seed(seed)
    steps: dict[str, Callable[[], object]] = {
        name: _step(METHODS[name](problem, place), problem, generator) for name in methods
    }
    steps[_SGEMM] = sgemm_rate(place, _SGEMM_SIZE)
    seconds = interleaved(steps, rounds, place)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    floor = problem.floor_flops * medians[_SGEMM] / (2.0 * _SGEMM_SIZE**3)
    return [
        {
            "method": name,
            "seconds": medians[name],
            "steps": len(seconds[name]),
            "ratio_to_dense": medians["dense"] / medians[name] if "dense" in medians else None,
            "ratio_to_full": medians["full"] / medians[name] if "full" in medians else None,
            "ratio_to_exact": medians[name] / medians["exact"] if "exact" in medians else None,
            "ratio_to_floor": medians[name] / floor,
            "floor_seconds": floor,
            "classes": classes,
            "width": width,
            "batch": batch,
            "targets_per_example": targets_per_example,
            **hardware(place),
        }
        for name in methods
    ]


def _step(method: Method, problem: OutputLayerProblem, generator: torch.Generator) -> Callable[[], object]:
    """A step on the next of a few batches that were drawn beforehand."""
    batches = [problem.draw(generator) for _ in range(8)]
    turn = 0

    def step() -> float:
        nonlocal turn
        hidden, targets = batches[turn % len(batches)]
        turn += 1
        return method.step(hidden.detach(), targets)

    return step


def _check_memory(problem: OutputLayerProblem) -> None:
    free = available_memory()
    if free is not None and problem.dense_bytes > free:
        raise ValueError(
            f"A dense layer of {problem.classes} classes and width {problem.width} needs "
            f"{problem.dense_bytes / 1e9:.1f} GB. Found {free / 1e9:.1f} GB free: leave dense and full out."
        )
