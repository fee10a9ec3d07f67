"""How long one training step of an output layer takes, method beside method in one run."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from widehead.bench.measure import hardware, in_turn, interleaved, percentile, sgemm_rate
from widehead.bench.memory import PeakMemory, available_memory, fitting
from widehead.bench.methods import CAPTURED, FUSED, METHODS, ONE_TARGET, memory_need, splits
from widehead.bench.problem import OutputLayerProblem
from widehead.bench.processes import in_processes
from widehead.bench.provenance import provenance
from widehead.errors import check_number
from widehead.split import Peers

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

#: what a row of a method that was left out has None for
FIGURES = (
    "seconds",
    "seconds_p99",
    "seconds_max",
    "steps",
    "peak_bytes",
    "ratio_to_dense",
    "ratio_to_full",
    "ratio_to_exact",
    "ratio_to_floor",
    "floor_seconds",
)
_SGEMM_SIZE = 1024
_TINY = OutputLayerProblem(classes=300, width=8, batch=4)


def combinations(
    classes: Sequence[int], width: Sequence[int], batch: Sequence[int], targets_per_example: Sequence[int]
) -> list[OutputLayerProblem]:
    """Every combination of the sizes once, D changing fastest. Raises ValueError if one is impossible."""
    sizes = itertools.product(width, batch, targets_per_example, classes)
    return list(dict.fromkeys(OutputLayerProblem(d, h, m, k) for h, m, k, d in sizes))


def left_out(
    problem: OutputLayerProblem, methods: Sequence[str], device: str = "cpu", processes: int = 1
) -> dict[str, str]:
    """Methods that cannot be timed on a problem: {name: why}, a sentence each.

    Raises:
        ValueError: an unknown method, the same one twice, or none that can be timed; more processes than examples.
    """
    if processes > 1 and (torch.device(device).type != "cpu" or processes > problem.batch):
        raise ValueError(
            "Several processes should be on the CPU, with an example each at least. Found "
            f"{processes} on {device}, and {problem.batch} examples."
        )
    if not methods or len(set(methods)) < len(methods) or not set(methods) <= METHODS.keys():
        raise ValueError(f"Parameter `methods` should name some of {', '.join(METHODS)}. Found {list(methods)}.")
    many = {name for name in methods if name in ONE_TARGET and problem.targets_per_example > 1}
    refused = {
        name: f"{name} takes one target an example. Found targets = {problem.targets_per_example}."
        for name in methods
        if name in many
    }
    if FUSED in methods and not hasattr(torch.nn, "LinearCrossEntropyOptions"):
        refused[FUSED] = f"{FUSED} needs torch 2.13 or newer. Found {torch.__version__}."
    if CAPTURED in methods and torch.device(device).type != "cuda":
        refused[CAPTURED] = f"{CAPTURED} needs a CUDA device. Found {device}."
    if processes > 1:
        refused |= {name: f"{name} runs in one process. Found {processes}." for name in methods if not splits(name)}
    needs = {name: memory_need(name, problem) for name in methods if name not in refused}
    refused |= fitting(needs, available_memory(torch.device(device)))
    if len(refused) == len(methods):
        reasons = " ".join(refused.values())
        raise ValueError(f"At {problem.classes:,} classes and width {problem.width} nothing can be timed. {reasons}")
    return refused


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
    processes: int = 1,
) -> list[dict[str, Any]]:
    """Time one step of each method on the same random problem, interleaved.

    A step is everything from the hidden layer on: loss, gradient to the encoder, update of all D × d weights.

    Args:
        classes, width, batch, targets_per_example: D, d, m, K.
        methods: names of `widehead.bench.methods.METHODS`.
        rounds: turns that each method gets.
        processes: in how many of this machine, each with a share of the rows and of the examples, and as many threads
            as this one; memory is that of the first.

    Returns:
        One row a method: "method", "seconds" (median of a step), "seconds_p99" and "seconds_max" (99th percentile and
        longest; of few steps both are the longest), "steps" (how many were timed), "peak_bytes" (most memory that the
        method held while it was built and made its first steps; None if unknown), "ratio_to_dense" and
        "ratio_to_full" (how many times faster than dense, and than the full softmax head; None without them),
        "ratio_to_exact" (how many times as long as a step of the exact head with plain SGD; None without it),
        "ratio_to_floor" (how many times slower than 14d²m flops at the float32 matrix-product rate measured in the same
        run), "floor_seconds", the problem's sizes, "processes", the hardware, "date", "commit" and "version". A method
        that does not fit has "skipped": why, and None for every figure; others have "skipped": None.

    Raises:
        ValueError: an unknown method, a size or ``rounds`` below 1, or no method that fits in memory.
    """
    check_number("rounds", rounds, 1)
    problem, place = OutputLayerProblem(classes, width, batch, targets_per_example), torch.device(device)
    refused = left_out(problem, methods, device, processes)
    kept = [name for name in methods if name not in refused]
    seconds, peaks = in_processes(processes, _measured, kept, problem, place, rounds, seed)
    flops_a_second = 2.0 * _SGEMM_SIZE**3 / statistics.median(seconds.pop(""))
    figures = _figures(seconds, problem.floor_flops / flops_a_second)
    shared = {**problem.sizes, "processes": processes, **hardware(place), **provenance()}
    nothing = dict.fromkeys(FIGURES)
    return [
        {"method": name, "skipped": refused[name], **nothing, **shared}
        if name in refused
        else {"method": name, "skipped": None, **figures[name], "peak_bytes": peaks[name], **shared}
        for name in methods
    ]


def _measured(
    mesh: DeviceMesh | None,
    names: Sequence[str],
    problem: OutputLayerProblem,
    device: torch.device,
    rounds: int,
    seed: int,
) -> tuple[dict[str, list[float]], dict[str, int | None]]:
    """Seconds of each method's steps, and "" of a plain product; and the memory that each took, here."""
    peers = Peers(mesh)
    share = peers.share(problem.batch)
    own = replace(problem, batch=share.stop - share.start)
    steps, peaks = _prepared(names, own, device, torch.Generator(device=device).manual_seed(seed + peers.rank), mesh)
    sgemm = sgemm_rate(device, _SGEMM_SIZE)
    sgemm()
    return interleaved({**steps, "": sgemm}, rounds, device, peers.said_by_first), peaks


def _prepared(
    names: Sequence[str],
    problem: OutputLayerProblem,
    device: torch.device,
    generator: torch.Generator,
    mesh: DeviceMesh | None,
) -> tuple[dict[str, Callable[[], object]], dict[str, int | None]]:
    """A step of each method, warm, and how much memory that took."""
    more = {} if mesh is None else {"mesh": mesh}
    for name in names:  # what is loaded at first use should neither be timed nor count as the method's memory
        METHODS[name](_TINY, device, **more).step(*_TINY.draw(generator))
    steps: dict[str, Callable[[], object]] = {}
    peaks: dict[str, int | None] = {}
    for name in names:
        batches = [problem.draw(generator) for _ in range(8)]
        with PeakMemory(device) as memory:
            method = METHODS[name](problem, device, **more)
            steps[name] = in_turn(method.step, batches)
            for _ in range(method.warm_up):
                steps[name]()
        peaks[name] = memory.bytes
    return steps, peaks


def _figures(seconds: dict[str, list[float]], floor: float) -> dict[str, dict[str, float | None]]:
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    dense, full, exact = (medians.get(name) for name in ("dense", "full", "exact"))
    return {
        name: {
            "seconds": median,
            "seconds_p99": percentile(seconds[name], 0.99),
            "seconds_max": max(seconds[name]),
            "steps": len(seconds[name]),
            "ratio_to_dense": None if dense is None else dense / median,
            "ratio_to_full": None if full is None else full / median,
            "ratio_to_exact": None if exact is None else median / exact,
            "ratio_to_floor": median / floor,
            "floor_seconds": floor,
        }
        for name, median in medians.items()
    }
