"""Newton's method on the weights of exact heads: recursive least squares, and what it is for other losses."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from widehead.arithmetic import empty_like
from widehead.errors import check_number
from widehead.optim.heads import FactoredHead
from widehead.optim.preconditioned import Batch, MemoryOfSum, Remembering, zero


@dataclass
class NewtonMemory(MemoryOfSum):
    """Of Newton's method.

    Attributes:
        target_peak: () the most curvature that targets added lately; it fades as the sum does.
    """

    target_peak: Tensor = field(default_factory=zero)


class Newton(Remembering[NewtonMemory]):
    """W ← W − lr·∇W·(A + δI)⁻¹, with A the curvature of the loss summed over past steps that fade.

    All rows of W share their curvature but for what target terms add, so one d × d matrix stands for a Hessian of
    D·d × D·d: A ← decay·A + HᵀΛH; Λ is the mean over all classes of the second derivative by an output. For
    squared error A is exact, and lr = 1 is recursive least squares with forgetting factor ``decay`` (Haykin, Adaptive
    Filter Theory, ch. 10); with decay = 1, refresh_every = 1 and damping → 0, W is after each step the least-squares
    solution of all that was seen, or with a ridge the ridge regression. For other losses it is the Gauss–Newton method
    in W. Classes that are often targets have more curvature than the mean; the step is divided by 1 + the most that
    any class had lately.

    Args:
        lr: step size, whose natural scale is 1 whatever the loss and the data.
        damping: δ, relative to the mean eigenvalue of A; None for 0.1.
        decay: how much of the past A keeps in a step, in [0, 1].
        ridge: A begins as ridge times the mean eigenvalue of the first HᵀΛH that is not 0, times I. With decay = 1 that
            is ridge regression towards the first W, which damping is not, as it grows with A; otherwise it fades.
        refresh_every: steps between two renewals of (A + δI)⁻¹, at the beginning in every step. None: 10; with
            decay = 1 whenever it lacks a fiftieth of the steps, and with damping = 0 besides in every step: then least
            squares are what is asked for, which examples whose h is large would miss with an inverse without them.
        heads, weight_decay, max_grad_norm, capturable: as in `Preconditioned`, and so are the errors raised.
    """

    default_refresh = 10
    memory = NewtonMemory

    def __init__(
        self,
        heads: FactoredHead | Iterable[FactoredHead],
        lr: float | None = None,
        *,
        damping: float | None = None,
        decay: float = 0.95,
        ridge: float = 0.0,
        refresh_every: int | None = None,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
        capturable: bool = False,
    ) -> None:
        check_number("ridge", ridge)
        if refresh_every is None and decay == 1.0 and damping == 0.0:
            refresh_every = 1
        super().__init__(
            heads,
            lr,
            decay=decay,
            refresh_every=refresh_every,
            damping=damping,
            weight_decay=weight_decay,
            max_grad_norm=max_grad_norm,
            capturable=capturable,
        )
        self._add_options(ridge=ridge)

    @staticmethod
    def default_lr(head: FactoredHead, options: Mapping[str, Any]) -> float:
        """1: Newton's own."""
        return 1.0

    def _precondition(self, batch: Batch, group: dict[str, Any], memory: NewtonMemory) -> tuple[Tensor, Tensor | None]:
        hidden = batch.hidden
        right = self._remember(weighted_gram(hidden, batch.mean_curvature()), group, memory)
        return torch.mm(hidden, right, out=empty_like(hidden)), None

    def _first_diagonal(self, first: Tensor, group: dict[str, Any]) -> Tensor | None:
        return group["ridge"] * torch.trace(first) / len(first) if group["ridge"] > 0.0 else None

    def _made_preconditioner(self, memory: NewtonMemory, damping: float) -> Tensor:
        return damped_inverse(memory.sum, damping)

    def _length(self, batch: Batch, group: dict[str, Any], memory: NewtonMemory) -> Any:
        """lr / (1 + the most curvature that targets added lately)."""
        if not batch.curves_at_targets:
            return group["lr"]
        memory.target_peak = torch.maximum(memory.targets, group["decay"] * memory.target_peak)
        return group["lr"] / (1.0 + memory.target_peak)


def weighted_gram(hidden: Tensor, weights: Tensor) -> Tensor:
    """(d, d) Σ_b weights_b h_bᵀh_b, weights (m,); on a CPU one of two blocks that are alike is not made."""
    scaled, half = torch.mul(hidden, weights[:, None], out=empty_like(hidden)), hidden.shape[1] // 2
    if hidden.device.type != "cpu":
        return hidden.T @ scaled
    out = hidden.new_empty(hidden.shape[1], hidden.shape[1])
    torch.mm(hidden[:, :half].T, scaled, out=out[:half])
    out[half:, half:] = hidden[:, half:].T @ scaled[:, half:]
    out[half:, :half] = out[:half, half:].T
    return out


def damped_inverse(matrix: Tensor, damping: float) -> Tensor:
    """(A + damping·tr(A)/d·I)⁻¹ of a symmetric positive semidefinite float64 matrix (d, d); NaN if A has NaN."""
    d = matrix.shape[0]
    least = 50 * d * torch.finfo(matrix.dtype).eps  # λmax may be tr(A); two digits are left of what is below
    ridge = torch.trace(matrix) * (max(damping, least) / d) + torch.finfo(matrix.dtype).tiny
    identity = torch.eye(d, dtype=matrix.dtype, device=matrix.device)
    lower, _ = torch.linalg.cholesky_ex(torch.addcmul(matrix, ridge, identity))
    inverse = torch.linalg.solve_triangular(lower, identity, upper=False)  # as cholesky_inverse waits for a GPU
    return inverse.T @ inverse
