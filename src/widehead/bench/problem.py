"""The problems that output layers are timed on: hidden layers and target classes, drawn at random.

Letters: D classes, d width, m examples a batch, K targets an example.
"""

import math
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor

from widehead.errors import check_choice, check_number
from widehead.targets import SparseTargets


@dataclass(frozen=True)
class OutputLayerProblem:
    """Sizes of an output layer. Raises ValueError if one is not a whole number of at least 1, or K > D."""

    classes: int
    width: int
    batch: int
    targets_per_example: int = 1

    def __post_init__(self) -> None:
        for name, size in self.sizes.items():
            check_number(name, size, 1)
        if self.targets_per_example > self.classes:
            raise ValueError(
                f"Parameter `targets_per_example` should be at most classes = {self.classes}. "
                f"Found {self.targets_per_example}."
            )

    def draw(self, generator: torch.Generator) -> tuple[Tensor, SparseTargets]:
        """One batch: hidden (m, d) with entries of unit size, and K uniform targets an example, no class twice, on the
        host as from a loader of data.
        """
        hidden = torch.randn(self.batch, self.width, generator=generator, device=generator.device)
        return hidden, SparseTargets.from_ids(self._distinct(generator).cpu())

    def _distinct(self, generator: torch.Generator) -> Tensor:
        """(m, K) uniform classes, the K of an example distinct: classes that an example repeats are drawn again."""
        size, device = self.targets_per_example, generator.device
        if 4 * size > self.classes:  # most draws would repeat one
            return torch.rand(self.batch, self.classes, generator=generator, device=device).argsort(1)[:, :size]
        ids = torch.randint(0, self.classes, (self.batch, size), generator=generator, device=device)
        rising, order = ids.sort(1)
        while (repeated := (rising[:, 1:] == rising[:, :-1]).nonzero()).numel():
            at = repeated[:, 0], order[repeated[:, 0], repeated[:, 1] + 1]
            ids[at] = torch.randint(0, self.classes, (len(repeated),), generator=generator, device=device)
            rising, order = ids.sort(1)
        return ids

    @property
    def sizes(self) -> dict[str, int]:
        """The four sizes by name, as rows of results have them."""
        return asdict(self)

    @property
    def floor_flops(self) -> float:
        """14 d² m: the multiplications and additions that an exact step cannot do without."""
        return 14.0 * self.width**2 * self.batch


class TrainedStream:
    """Batches whose hidden layers look like those of a trained encoder, which are far from white.

    h = √d · (√½ μ + √½ Σ_i √λ_i z_i v_i) with z_i standard normal, λ_i ∝ 1/i and Σ λ_i = 1, v_i an orthonormal basis
    and μ a direction of length 1, both drawn once. So E‖h‖² = d, half of it in the mean direction, and the covariance
    has a spectrum that decays as a power. Both are admitted simplifications; the stream is stationary.

    Args:
        problem: sizes.
        targets: "uniform", or "zipf": class c with a probability of about 1 / ((c + 1) ln(D + 1)), as words have.
        generator: on the device of the batches; draws basis, mean and batches.
    """

    def __init__(
        self, problem: OutputLayerProblem, targets: Literal["zipf", "uniform"], generator: torch.Generator
    ) -> None:
        check_choice("targets", targets, ("zipf", "uniform"))
        d, device = problem.width, generator.device
        self.problem, self.targets, self.generator = problem, targets, generator
        basis = torch.linalg.qr(torch.randn(d, d, generator=generator, device=device)).Q
        share = 1.0 / torch.arange(1, d + 1, device=device)
        mean = torch.randn(d, generator=generator, device=device)
        self._spread = math.sqrt(0.5 * d) * (share / share.sum()).sqrt()[:, None] * basis.T
        self._mean = math.sqrt(0.5 * d) * mean / torch.linalg.vector_norm(mean)

    def draw(self) -> tuple[Tensor, SparseTargets]:
        """One batch: hidden (m, d), and K targets an example on the host."""
        size, device = self.problem, self.generator.device
        noise = torch.randn(size.batch, size.width, generator=self.generator, device=device)
        shape = (size.batch, size.targets_per_example)
        level = torch.rand(shape, generator=self.generator, device=device, dtype=torch.float64)
        ids = level * size.classes if self.targets == "uniform" else torch.expm1(level * math.log1p(size.classes))
        return self._mean + noise @ self._spread, SparseTargets.from_ids(ids.long().clamp_(max=size.classes - 1).cpu())

    def largest_stable_lr(self, batches: int = 16) -> float:
        """2/λmax of the squared error's curvature 2HᵀH/m, the smallest over a few batches drawn for it."""
        spectra = [torch.linalg.matrix_norm(self.draw()[0], ord=2) ** 2 for _ in range(batches)]
        return self.problem.batch / float(torch.stack(spectra).max())
