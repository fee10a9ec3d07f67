"""The table of speed-ups of Vincent, de Brébisson and Bouthillier (NIPS 2015, arXiv 1412.7091), measured here.

Their setting is a neural language model over the 793,471 words of the One Billion Word corpus: two hidden layers of
300, minibatches of 128, squared error, timed as the output layer alone and as the whole model, against the same
network with an ordinary output layer.
"""

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from widehead.bench.measure import hardware, in_turn, interleaved
from widehead.bench.memory import Need, available_memory, fitting
from widehead.bench.methods import METHODS, Method, memory_need
from widehead.bench.problem import OutputLayerProblem
from widehead.bench.provenance import provenance
from widehead.errors import check_number
from widehead.targets import SparseTargets

_OUTPUT, _WHOLE = "output layer only", "whole model"
_LR = 1e-4


#: Speed-ups that papers state, of the factored output layer over the ordinary one on the same device; those whose
#: source could not be found are left out.
PUBLISHED: tuple[dict[str, Any], ...] = (
    {
        "part": _OUTPUT,
        "device": "cpu",
        "speedup": 763.0,
        "source": "Vincent et al. 2015, arXiv 1412.7091: CPU, output layer only",
    },
)


@dataclass(frozen=True)
class PaperSizes:
    """Sizes of the language model; the defaults are the paper's, but for ``embedding``.

    Attributes:
        classes, width, batch: D words, width d of both hidden layers and of the output layer's input, m examples.
        context: words that predict the next one; the paper's n-grams have ten words.
        embedding: width of a word's embedding. The paper's is not known here; 100 is what an example of the authors'
            code has.
    """

    classes: int = 793_471
    width: int = 300
    batch: int = 128
    context: int = 9
    embedding: int = 100

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            check_number(name, value, 1)


class Network:
    """Embeddings side by side, two tanh layers, and an output layer that some method trains.

    The table of embeddings gets sparse gradients and all of the encoder plain SGD, so what it costs does not grow with
    the number of words.
    """

    def __init__(self, sizes: PaperSizes, output: Method, device: torch.device) -> None:
        self.output = output
        self.encoder = nn.Sequential(
            nn.Embedding(sizes.classes, sizes.embedding, sparse=True, device=device),
            nn.Flatten(),
            nn.Linear(sizes.context * sizes.embedding, sizes.width, device=device),
            nn.Tanh(),
            nn.Linear(sizes.width, sizes.width, device=device),
            nn.Tanh(),
        )
        self.optimizer = torch.optim.SGD(self.encoder.parameters(), lr=_LR)

    def step(self, words: Tensor, targets: SparseTargets) -> Tensor:
        """One training step on contexts ``words`` (m, context); returns the loss."""
        self.optimizer.zero_grad()
        loss = self.output.step(self.encoder(words), targets)
        self.optimizer.step()
        return loss


def paper_table(
    sizes: PaperSizes | None = None, *, rounds: int = 3, device: str = "cpu", seed: int = 0
) -> list[dict[str, Any]]:
    """Time the output layer alone and the whole model, exact and as plain PyTorch, all four interleaved.

    Words and targets are drawn uniformly, which is the worst case for memory's caches.

    Returns:
        A row for each part: "part", "dense_seconds" and "exact_seconds" (medians), "speedup" (their ratio),
        "published" (from `PUBLISHED`; empty if the sizes are not the paper's), the sizes, the
        hardware, "date", "commit" and "version".

    Raises:
        ValueError: ``rounds`` below 1, or not enough memory for the dense layer.
    """
    check_number("rounds", rounds, 1)
    sizes, place = sizes or PaperSizes(), torch.device(device)
    _check_memory(sizes, place)
    steps = _steps(sizes, place, seed)
    for step in steps.values():
        step()
    medians = {name: statistics.median(values) for name, values in interleaved(steps, rounds, place).items()}
    shared = {**asdict(sizes), **hardware(place), **provenance()}
    own = sizes == PaperSizes(embedding=sizes.embedding)
    return [
        {
            "part": part,
            "dense_seconds": medians[f"dense, {part}"],
            "exact_seconds": medians[f"exact, {part}"],
            "speedup": medians[f"dense, {part}"] / medians[f"exact, {part}"],
            "published": [fact for fact in PUBLISHED if fact["part"] == part and own],
            **shared,
        }
        for part in (_OUTPUT, _WHOLE)
    ]


def _check_memory(sizes: PaperSizes, device: torch.device) -> None:
    problem = OutputLayerProblem(sizes.classes, sizes.width, sizes.batch)
    table = 4 * sizes.classes * sizes.embedding
    needs = {}
    for name in ("exact", "dense"):
        need = memory_need(name, problem)
        needs[name] = Need(need.resident + table, need.working)
    refused = fitting(needs, available_memory(device))
    if refused:
        raise ValueError(f"The table needs both networks in memory. {' '.join(refused.values())}")


def _steps(sizes: PaperSizes, device: torch.device, seed: int) -> dict[str, Callable[[], object]]:
    problem = OutputLayerProblem(sizes.classes, sizes.width, sizes.batch)
    generator = torch.Generator(device=device).manual_seed(seed)
    shape = (sizes.batch, sizes.context)
    steps: dict[str, Callable[[], object]] = {}
    for name in ("exact", "dense"):
        layer = METHODS[name](problem, device)
        drawn = [problem.draw(generator) for _ in range(8)]
        words = [torch.randint(sizes.classes, shape, generator=generator, device=device) for _ in drawn]
        steps[f"{name}, {_OUTPUT}"] = in_turn(layer.step, drawn)
        targets = [targets for _, targets in drawn]
        steps[f"{name}, {_WHOLE}"] = in_turn(Network(sizes, layer, device).step, zip(words, targets, strict=True))
    return steps
