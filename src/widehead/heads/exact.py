"""The exact head: an output layer whose exact training costs O(d²) an example, whatever the number of classes.

Letters: m examples, D classes, d width, K targets, nnz targets in all; H (m, d) hidden, O = HWᵀ outputs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from widehead.arithmetic import Forward, sharing
from widehead.cached import record_of
from widehead.errors import RankingWarning, check_choice, warn_user
from widehead.factored import Audit, FactoredWeights, LearningRateMonitor
from widehead.heads.contract import check_shapes, checked_hidden, linear_of, opaque, reduced, reduction_by_losses, told
from widehead.heads.exact_options import checked_dtype, checked_path, checked_storage_dtype
from widehead.heads.exact_pending import ExactPending
from widehead.heads.gate import Gate
from widehead.heads.graph import ExactFunction, check_revision, output_derivatives
from widehead.heads.handle import Handle
from widehead.heads.scorer import Scorer
from widehead.losses import Loss, Partials
from widehead.precision import in_full_precision
from widehead.split import SplitWeights, split_by
from widehead.targets import SparseTargets, TargetsLike
from widehead.versions import Rows

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class ExactHead(ExactPending):
    """A D × d output layer with a loss of the spherical family, trained exactly without ever forming its outputs.

    W is no parameter: `widehead.optim` changes it, in ``optimizer.step()``, by the exact step of Vincent, de
    Brébisson and Bouthillier (NIPS 2015). `backward` reaches the encoder and leaves the step to the optimiser. In
    eval mode, under ``torch.no_grad()`` or after ``requires_grad_(False)`` nothing is remembered.

    Args:
        in_features: d, the width of the last hidden layer.
        num_classes: D.
        loss: one of `widehead.losses`.
        bias: an additional output weight for a hidden unit that is always 1.
        storage: path of a file to keep the rows of W in, for a W larger than memory: the system reads them and writes
            them back as they are needed. It is made here, as large as W (twice that from the moment on that an
            optimiser keeps momentum), and stays when the program ends. Its content means something to this head
            alone, while it lives; what lasts is the state_dict, which holds W whole. CPU only.
        storage_owner: what the first page of that file says about whose it is, such as the folder of a run.
        storage_dtype: torch.bfloat16 keeps W in half of the memory; None keeps it in ``dtype``. See `Rows`.
        mesh: a DeviceMesh of one dimension: the rows are split over its processes, each of which gives its own examples
            and calls all methods together with the others. The loss of each is of its own examples, and the step is
            that of the mean of all processes' losses, as in DistributedDataParallel, which the encoder belongs in.
        device, dtype: as in torch; dtype float32 or float64.

    Raises:
        FileExistsError: there is something at ``storage`` already.
        OSError: it cannot be made, as on a full disk.
        TypeError, ValueError: parameters out of range.

    >>> _ = torch.manual_seed(0)
    >>> from widehead.losses import SquaredError
    >>> head = ExactHead(8, 1000, SquaredError())
    >>> head(torch.ones(2, 8), [[3], [14, 15]]).shape
    torch.Size([])
    """

    around = sharing

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        loss: Loss,
        *,
        bias: bool = False,
        storage: str | os.PathLike[str] | None = None,
        storage_owner: str = "",
        storage_dtype: torch.dtype | None = None,
        mesh: DeviceMesh | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, num_classes)
        if not isinstance(loss, Loss):
            raise TypeError(f"Parameter `loss` should be one of widehead.losses. Found {type(loss).__name__}.")
        self.loss = loss
        self.has_bias = bias
        dtype = self._working_type(torch.get_default_dtype()) if dtype is None else checked_dtype(dtype)
        split = None if mesh is None else split_by(mesh, num_classes, torch.empty(0, device=device).device)
        rows = Rows.empty(
            num_classes if split is None else len(split.rows),
            in_features + bias,
            device=device,
            dtype=dtype,
            storage_dtype=checked_storage_dtype(storage_dtype, dtype),
            path=checked_path(storage, torch.empty(0, device=device).device),
            owner=storage_owner,
        )
        try:
            std = loss.initial_std(in_features, num_classes)
            if split is None:
                rows.draw(std)
                self.weights = record_of(FactoredWeights.from_rows(rows))
            else:
                split.draw(rows, std)
                self.weights = SplitWeights.from_rows(rows, split=split)
        except BaseException:  # Ctrl-C, say: a file with half of the numbers is of no use
            rows.remove()
            raise
        self.monitor = LearningRateMonitor()
        #: empty, stands for W among the module's parameters: if it requires no gradient, W is not trained
        self.handle = Handle.of(self, nn.Parameter(torch.empty(0, device=rows.device, dtype=dtype)))
        self._gate = Gate()

    # -- loss ---------------------------------------------------------------------------------------------------

    def prepare_targets(self, targets: SparseTargets) -> SparseTargets:
        return self.loss.prepare(targets)

    def _counted_losses(self, hidden: Tensor, targets: SparseTargets) -> tuple[Tensor, Tensor | None]:
        hidden = self._widened(hidden)
        read = self._read(hidden, targets)
        if self._remembers(hidden):
            losses = self._attached(hidden, read, self._partials(read, targets))
        else:
            losses = self.loss(*read.statistics(), targets, self.num_classes)
        return losses, self._counted(targets)

    def _counted(self, targets: SparseTargets) -> Tensor | None:
        return targets.counts > 0 if self.loss.needs_targets else None

    def num_counted(self, targets: SparseTargets) -> int:
        return super().num_counted(targets) if self.loss.needs_targets else len(targets)

    @opaque
    @told
    @torch.no_grad()
    @in_full_precision
    def loss_and_gradient(
        self,
        hidden: Tensor,
        targets: TargetsLike,
        *,
        weight: Tensor | None = None,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> tuple[Tensor, Tensor]:
        """The loss () and its gradient by ``hidden``, of the shape of ``hidden``, without autograd.

        The same numbers as ``loss = head(hidden, targets)`` and ``loss.backward()``, the step that is left for the
        optimiser included, in less time: for those who have no encoder to train, or give ``hidden.backward()`` the
        gradient themselves. Under ``torch.no_grad()`` too a step is left; in eval mode or frozen the head keeps none.

        Args:
            hidden, targets, weight: as in `forward`.
            reduction: "mean" or "sum".

        Raises:
            TypeError, ValueError: wrong shapes, types or class ids; another reduction.
        """
        check_choice("reduction", reduction, ("mean", "sum"))
        rows, lead = checked_hidden(hidden, self.in_features, self.device)
        with self.around:
            sparse = self.prepare_targets(self._targets(targets, lead, rows))
            rows = self._widened(rows)
            self._await_step()
            with self.at_work():
                read = self.weights.forward(rows, sparse, learns=self.learns)
            partials, counted = self._partials(read, sparse), self._counted(sparse)
            given = partials.losses.view(lead), None if counted is None else counted.view(lead), weight
            by_losses = reduction_by_losses(*given, reduction).view(-1)
            parts = output_derivatives(read, partials.by_q, partials.by_s, partials.by_a, by_losses)
            with self.at_work():
                check_revision(self.weights, read)
                gradient = self.weights.gradient(read, *parts)
        if self.learns:
            self.record(gradient)
        by_hidden = self.weights.by_hidden(gradient, read)[:, : self.in_features]
        return reduced(*given, reduction), by_hidden.to(hidden.dtype).reshape(hidden.shape)

    def _read(self, hidden: Tensor, targets: SparseTargets) -> Forward:
        learns = torch.is_grad_enabled() and self.learns
        with self.at_work() if learns else self._gate:
            return self.weights.forward(hidden.detach(), targets, learns=learns)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Held while a pass or a step works on the weights: other threads then do not rewrite rows, or wait.

        On a machine that others use too, fewer threads work.
        """
        with self._gate.writing() if self._weights.forward_writes else self._gate, sharing:
            yield

    @torch.no_grad()
    def _partials(self, read: Forward, targets: SparseTargets) -> Partials:
        statistics = read.squared_norm, read.hidden_sum, read.outputs
        return self.loss.partials(*statistics, targets, self.num_classes)

    @opaque
    @told
    @in_full_precision
    def statistics(self, hidden: Tensor, targets: TargetsLike) -> tuple[Tensor, Tensor, Tensor]:
        """Differentiable q = ‖o‖² (…), s = Σ_j o_j (…) and a = o at the targets (nnz,), in the targets' order.

        Any differentiable function of these is a loss that this head trains exactly.
        """
        rows, lead = checked_hidden(hidden, self.in_features, self.device)
        q, s, a = self._statistics(rows, self._targets(targets, lead, rows))
        return q.view(lead), s.view(lead), a

    def _statistics(self, hidden: Tensor, targets: SparseTargets) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self._widened(hidden)
        read = self._read(hidden, targets)
        q, s, a = self._attached(hidden, read) if self._remembers(hidden) else read.statistics()
        return q, s, a

    def _attached(self, hidden: Tensor, read: Forward, known: Partials | None = None) -> Any:
        """The statistics, or the losses that are known with their derivatives, in autograd's graph."""
        self._await_step()
        # A view, because of a leaf torch does not tell whether a backward pass reaches it.
        return ExactFunction.apply(hidden, self.handle.view_as(self.handle), self, read, known)

    def _remembers(self, hidden: Tensor) -> bool:
        """Whether a backward pass may follow."""
        return torch.is_grad_enabled() and (self.learns or hidden.requires_grad)

    def refused(self, error: Exception) -> None:
        self._weights.tell(error)

    # -- reading the outputs ------------------------------------------------------------------------------------

    def _all_scores(self, hidden: Tensor) -> Tensor:
        with self._gate:
            return self.loss.score(self.weights.all_outputs(self._widened(hidden)))

    def _scores_at(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        """The output o, or log p + constant if the loss has p."""
        return self.loss.score(self._statistics(hidden, targets)[2])

    def _log_probs(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        if not self.loss.has_probabilities:
            raise TypeError(f"{type(self.loss).__name__} defines no probabilities, so there is no log_prob.")
        q, s, a = self._statistics(hidden, targets)
        return self.loss.score(a) - self.loss.log_normalizer(q, s, self.num_classes)[targets.example_ids]

    def _best(self, hidden: Tensor, k: int, banned: SparseTargets | None) -> tuple[Tensor, Tensor]:
        """Reads all of W block by block; call `consolidate` once before many calls."""
        with self._gate:
            best, ids = self.weights.best(self._widened(hidden), k, banned, self.loss.ranking)
        return self.loss.score_of(best), ids

    # -- the weights --------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return self.weights.values.device

    @property
    def dtype(self) -> torch.dtype:
        """The type that the head works in; see ``storage_dtype`` for that of the stored weights."""
        return self.weights.dtype

    @in_full_precision
    def weight(self) -> Tensor:
        """A dense copy of W, (num_classes, in_features)."""
        return self._dense()[0]

    @in_full_precision
    def bias(self) -> Tensor | None:
        """A copy of the bias, (num_classes,), or None."""
        return self._dense()[1] if self.has_bias else None

    def _dense(self) -> tuple[Tensor, Tensor | None]:
        """W and the bias, filled in block by block, so that there is one copy."""
        d, record = self.in_features, self.weights
        weight = torch.empty(record.rows.num_rows, d, dtype=self.dtype, device=self.device)
        bias = weight.new_empty(len(weight)) if self.has_bias else None
        with self._gate:
            for start, rows in record.blocks():
                here = slice(start - record.first, start - record.first + rows.shape[0])
                weight[here] = rows[:, :d]
                if bias is not None:
                    bias[here] = rows[:, d]
        return record.whole(weight), None if bias is None else record.whole(bias)

    @in_full_precision
    def to_linear(self) -> nn.Linear:
        """An ordinary nn.Linear with the same weights. RankingWarning if classes are not ranked by its outputs."""
        if (formula := self.loss.ranks_by) is not None:
            warn_user(
                f"The largest outputs o of this nn.Linear are not the best classes: {type(self.loss).__name__} ranks "
                f"by {formula}. Apply that, or use head.to_scorer(), a module that ranks as the head does.",
                RankingWarning,
            )
        return self._linear()

    def to_scorer(self) -> Scorer:
        return Scorer(self._linear(), None if self.loss.ranks_by is None else self.loss)

    def _linear(self) -> nn.Linear:
        self.check_untouched()
        return linear_of(*self._dense())

    @told
    @in_full_precision
    def load_weight(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Set W to ``weight`` (num_classes, in_features), copied, and the bias to ``bias`` (zeros if None).

        If an optimiser keeps momentum, the momentum begins anew at 0.
        """
        check_shapes(weight, bias, (self.num_classes, self.in_features), self.has_bias)
        old, order = self.weights.rows, self.weights.order
        is_finite = all(torch.isfinite(rows).all() for _, rows in self._blocks_of(weight, bias))
        self.weights.agree(None if is_finite else "`weight` and `bias` should be finite. Found NaN or infinity.")
        for start, rows in self._blocks_of(weight, bias):
            old.put(start, pad(rows, (0, (order - 1) * rows.shape[1])))
        self._replace(self.weights.fresh(old, order))

    def _blocks_of(self, weight: Tensor, bias: Tensor | None) -> Iterator[tuple[int, Tensor]]:
        """Pairs (first row, (n, width) rows of W with their bias): V is never held twice."""
        for start, stop in self.weights.rows.spans():
            here = slice(self.weights.first + start, self.weights.first + stop)
            rows = weight[here].detach().to(device=self.device, dtype=self.dtype)
            if self.has_bias:
                column = rows.new_zeros(stop - start) if bias is None else bias[here].detach().to(rows)
                rows = torch.cat([rows, column[:, None]], dim=1)
            yield start, rows

    def keep_momentum(self, keep: bool, basis: float = 0.0) -> None:
        """Keep a momentum beside W from now on, which begins at 0, or drop it; O(Dd²) if that is a change.

        Optimisers ask for it once, as they are made. It rounds W anew if that is stored in bfloat16, so that gradients
        of passes before are stale.

        Args:
            keep: whether to keep one.
            basis: r, if W + r·M is what W will have become when a momentum M has run out; changes no result.
        """
        self.weights = self.weights.with_order(2 if keep else 1, basis)

    @in_full_precision
    def consolidate(self) -> None:
        """Bring every row up to date, O(Dd²). W stays the same; reading much of it (top_k) is faster afterwards.

        Other threads may read meanwhile: it waits for those that do, and they wait for it.
        """
        with self._gate.writing():
            self.weights.consolidate()

    @in_full_precision
    def audit(self) -> Audit:
        """Drift of Q, U⁻¹ and w̄ against a dense recomputation in float64, O(Dd²)."""
        with self._gate:
            return self.weights.audit()

    def extra_repr(self) -> str:
        loss = type(self.loss).__name__
        rows = self.weights.rows
        kept = f", storage_dtype={rows.stored.dtype}" if rows.is_narrow else ""
        kept += f", storage={str(rows.path)!r}" if rows.path is not None else ""
        return f"{super().extra_repr()}, loss={loss}, bias={self.has_bias}{kept}"
