"""The method as it was published, in float64 and nothing else: read this file first.

P. Vincent, A. de Brébisson and X. Bouthillier, "Efficient exact gradient update for training deep networks with very
large sparse targets", NIPS 2015 (arXiv 1412.7091), and for the sum s, "Exact gradient updates in time independent of
output size for the spherical loss family" (arXiv 1606.08061).

An output layer has weights W (D, d) for D classes. A hidden layer H (m, d) of m examples gives the outputs O = HWᵀ.
Suppose that the loss L depends on each example's outputs o through three things only:

    q = ‖o‖² = h(WᵀW)hᵀ,    s = Σ_j o_j = h·(Wᵀ1),    a = outputs at the K classes that are the example's targets.

Then ∂L/∂O has a dense part of two numbers an example, λ and σ, and a sparse part S, not zero at the targets only:

    T = ∂L/∂O = ΛO + σ1ᵀ + S,    Λ = diag(λ),    λ = 2 ∂L/∂q,    σ = ∂L/∂s,    S = ∂L/∂a at the targets.

So the gradient of H is TW = ΛHQ + σw̄ᵀ + SW with Q = WᵀW and w̄ = Wᵀ1, and one step of gradient descent is

    W − ηTᵀH = W(I − ηHᵀΛH) − η1σᵀH − ηSᵀH.

All rows of W are multiplied by one matrix and get one vector added; SᵀH changes the rows of the targets. With W held as
V·U + 1ωᵀ the first part goes into U (d, d) and ω (d,), the second part into a few rows of V (D, d). Neither W nor O nor
T is ever formed: a step costs O(d²) an example, whatever D is.

What is missing here, and why the package is larger: U is a product of all steps, so it becomes ill conditioned, and
U⁻¹ and V lose their digits. `widehead.heads.ExactHead` makes the same step and keeps them.
"""

import torch
from torch import Tensor


class PlainHead:
    """Output weights W = V·U + 1ωᵀ with Q = WᵀW and w̄ = Wᵀ1, trained by SGD with the exact gradient.

    Every method takes targets as class ids (m, K) int64, K an example; a class may be named twice. An example with
    fewer targets names any class in the spare places, with ``by_a`` 0 there.

    Args:
        weight: (D, d) W to begin with, copied.

    >>> head = PlainHead(torch.zeros(5, 2))
    >>> hidden, targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double(), torch.tensor([[3], [4]])
    >>> for _ in range(50):  # the squared error ‖o − y‖² with y = 1 at the target: q − 2a + 1
    ...     q, s, a = (x.requires_grad_() for x in head.statistics(hidden, targets))
    ...     loss = (q - 2 * a.sum(1) + 1).sum()
    ...     head.step(hidden, targets, *torch.autograd.grad(loss, (q, s, a), materialize_grads=True), lr=0.2)
    >>> loss.item() < 1e-9, (head.weight() @ hidden.T).argmax(0).tolist()
    (True, [3, 4])
    """

    def __init__(self, weight: Tensor) -> None:
        d = weight.shape[1]
        self.v = weight.to(torch.float64, copy=True)  # V
        self.u = torch.eye(d, dtype=torch.float64)  # U
        self.u_inverse = torch.eye(d, dtype=torch.float64)  # U⁻¹
        self.omega = torch.zeros(d, dtype=torch.float64)  # ω
        self.gram = self.v.T @ self.v  # Q = WᵀW
        self.column_sum = self.v.sum(0)  # w̄ = Wᵀ1

    def weight(self) -> Tensor:
        """(D, d) W, formed for comparison only."""
        return self.v @ self.u + self.omega

    def statistics(self, hidden: Tensor, class_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q = ‖o‖² (m,), s = Σ_j o_j (m,) and a = o at the targets (m, K), without computing the other outputs."""
        q = ((hidden @ self.gram) * hidden).sum(1)  # q = hQhᵀ
        s = hidden @ self.column_sum  # s = h·w̄
        rows = self.v[class_ids] @ self.u + self.omega  # w_c = v_c·U + ω
        return q, s, (rows @ hidden[:, :, None]).squeeze(2)  # a = w_c·h

    def gradient(self, hidden: Tensor, class_ids: Tensor, by_q: Tensor, by_s: Tensor, by_a: Tensor) -> Tensor:
        """(m, d) ∂L/∂H = TW, from ∂L/∂q (m,), ∂L/∂s (m,) and ∂L/∂a (m, K)."""
        classes, sparse = _as_matrix(class_ids, by_a)
        rows = self.v[classes] @ self.u + self.omega
        dense = 2.0 * by_q[:, None] * (hidden @ self.gram) + torch.outer(by_s, self.column_sum)
        return dense + sparse @ rows  # ΛHQ + σw̄ᵀ + SW

    def step(self, hidden: Tensor, class_ids: Tensor, by_q: Tensor, by_s: Tensor, by_a: Tensor, *, lr: float) -> None:
        """W ← W − ηTᵀH with η = ``lr``; arguments as in `gradient`.

        Raises:
            torch.linalg.LinAlgError: I − ηHᵀΛH has no inverse, so that U would have none.
        """
        m, lam, h, eta = len(hidden), 2.0 * by_q[:, None], hidden, lr
        classes, sparse = _as_matrix(class_ids, by_a)
        by_hidden = self.gradient(hidden, class_ids, by_q, by_s, by_a)  # TW
        sparse_rows = sparse @ (self.v[classes] @ self.u + self.omega)  # SW
        sums = lam[:, 0] * (h @ self.column_sum) + len(self.v) * by_s + sparse.sum(1)  # T1 = ΛHw̄ + Dσ + S1

        # TTᵀ = (TW)HᵀΛ + (T1)σᵀ + TSᵀ  with  TSᵀ = ΛH(SW)ᵀ + σ(S1)ᵀ + SSᵀ
        gram = by_hidden @ (lam * h).T + torch.outer(sums, by_s)
        gram += lam * h @ sparse_rows.T + torch.outer(by_s, sparse.sum(1)) + sparse @ sparse.T

        # C = HU⁻¹ for the new U, by the push-through identity: H(I − ηHᵀΛH)⁻¹ = (I − ηHHᵀΛ)⁻¹H
        system = torch.eye(m, dtype=torch.float64) - eta * h @ (lam * h).T
        solved = torch.linalg.solve(system, h @ self.u_inverse)

        z = eta * by_hidden - 0.5 * eta**2 * gram @ h
        self.gram -= h.T @ z + z.T @ h  # (W − ηTᵀH)ᵀ(W − ηTᵀH)
        self.column_sum -= eta * h.T @ sums  # w̄ ← w̄ − ηHᵀT1
        self.omega -= eta * h.T @ (lam[:, 0] * (h @ self.omega) + by_s)  # ω ← ω − ηHᵀ(ΛHω + σ)
        self.u -= eta * (self.u @ h.T) @ (lam * h)  # U ← U(I − ηHᵀΛH)
        self.u_inverse += eta * (lam * h).T @ solved  # U⁻¹ ← U⁻¹ + ηHᵀΛC  (Woodbury)
        self.v[classes] -= eta * sparse.T @ solved  # V ← V − ηSᵀC: rows of the targets only


def _as_matrix(class_ids: Tensor, by_a: Tensor) -> tuple[Tensor, Tensor]:
    """The n distinct target classes (n,), and S (m, n) with their columns; all others of its columns are 0."""
    classes, where = class_ids.unique(return_inverse=True)
    return classes, by_a.new_zeros(len(by_a), len(classes)).scatter_add_(1, where, by_a)
