"""Bases of the heads: the contract of all, and that of those whose weights are ordinary parameters.

Letters: m examples, … their dimensions if they have several, D classes, d width, nnz targets in all; H (m, d) hidden,
O = HWᵀ outputs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from widehead.errors import check_whole
from widehead.heads.contract import Reduction, checked_hidden, checked_targets, named_classes, opaque, reduced, told
from widehead.heads.scorer import HeadScorer
from widehead.losses import mean_over_targets
from widehead.precision import in_full_precision
from widehead.targets import SparseTargets, TargetsLike


class Head(nn.Module):
    """The contract of all output layers.

    Targets are ragged: an example may have any number of them. The hidden layer may have any dimensions before its
    last, (batch, length, d) for example: targets, weights, classes and all that comes back then have them too.
    SparseTargets and sparse matrices, which have one dimension of examples, name them in the order of
    ``hidden.flatten(0, -2)``.
    """

    in_features: int
    num_classes: int
    #: whether there is an output weight for a hidden unit that is always 1
    has_bias: bool = False
    #: around the work of a forward pass; may be entered again inside
    around: AbstractContextManager[object] = nullcontext()

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        check_whole("in_features", in_features)
        check_whole("num_classes", num_classes)
        self.in_features = in_features
        self.num_classes = num_classes

    @opaque
    @told
    @in_full_precision
    def forward(
        self,
        hidden: Tensor,
        targets: TargetsLike | None = None,
        *,
        weight: Tensor | None = None,
        reduction: Reduction = "mean",
    ) -> Tensor:
        """The loss of ``hidden`` (…, d) at ``targets``: () for a mean or sum, (…) for "none".

        Without targets it is what a last linear layer gives to those who call a model for its outputs: `scores` (…, D).

        Args:
            hidden: (…, in_features).
            targets: class ids (…) or (…, K), −100 for none; SparseTargets or any raw form of them (see
                `SparseTargets.convert`). None if the head does not train: in eval mode or under torch.no_grad().
            weight: (…) weight of each example. The mean is Σ w ℓ / Σ w, over examples that have a loss.
            reduction: "mean", "sum" or "none". The mean over no examples is 0.

        Raises:
            TypeError, ValueError: wrong shapes, types or class ids.
        """
        if targets is None:
            return self._outputs_alone(hidden)
        rows, lead = checked_hidden(hidden, self.in_features, self.device)
        with self.around:
            prepared = self.prepare_targets(checked_targets(targets, lead, self.num_classes))
            losses, counted = self._counted_losses(rows, prepared.to(rows.device))
        if rows is not hidden:
            losses, counted = losses.view(lead), None if counted is None else counted.view(lead)
        return reduced(losses, counted, weight, reduction)

    def _outputs_alone(self, hidden: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            raise TypeError(
                "A head in training should be given targets: head(hidden, targets) is the loss. Found none, as of a "
                "model that computes a loss of the scores of all classes: give its hidden layer and the targets to the "
                "head. In eval mode, or under torch.no_grad(), head(hidden) are the scores."
            )
        return self.scores(hidden)

    @abstractmethod
    def _counted_losses(self, hidden: Tensor, targets: SparseTargets) -> tuple[Tensor, Tensor | None]:
        """(m,) losses, anything finite if an example has none, and (m,) whether it has one; None if all have."""

    def num_counted(self, targets: SparseTargets) -> int:
        """How many of the examples have a loss, over which the mean is."""
        return int((targets.counts > 0).sum())

    @opaque
    @told
    @in_full_precision
    def scores(self, hidden: Tensor, class_ids: Tensor | SparseTargets | None = None) -> Tensor:
        """Scores of some classes, by which `top_k` ranks.

        Args:
            hidden: (…, d).
            class_ids: (…) or (…, K) ids, or SparseTargets; None for all classes.

        Returns:
            The shape of ``class_ids``, (nnz,) for SparseTargets, in their order; (…, D) for all classes.

        Raises:
            TypeError, ValueError: wrong shapes, types or class ids.
        """
        rows, lead = checked_hidden(hidden, self.in_features, self.device)
        if class_ids is None:
            return self._all_scores(rows).view(*lead, self.num_classes)
        return self._at(self._scores_at, rows, lead, class_ids)

    @abstractmethod
    def _all_scores(self, hidden: Tensor) -> Tensor:
        """(m, D) scores of all classes."""

    @abstractmethod
    def _scores_at(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        """(nnz,) scores of the classes that ``targets`` names for each example."""

    @opaque
    @told
    @in_full_precision
    def log_prob(self, hidden: Tensor, class_ids: Tensor | SparseTargets) -> Tensor:
        """log p(class | hidden), normalised over all D classes; shapes as in `scores`.

        Raises:
            TypeError: the head defines no probabilities; or as in `scores`.
        """
        rows, lead = checked_hidden(hidden, self.in_features, self.device)
        return self._at(self._log_probs, rows, lead, class_ids)

    @abstractmethod
    def _log_probs(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        """(nnz,) log p of the classes that ``targets`` names; TypeError if there are no probabilities."""

    def _at(
        self,
        read: Callable[[Tensor, SparseTargets], Tensor],
        rows: Tensor,
        lead: torch.Size,
        class_ids: Tensor | SparseTargets,
    ) -> Tensor:
        """What ``read`` finds at classes, in their shape."""
        named = named_classes(class_ids, lead)
        named.check_classes(self.num_classes)
        found = read(rows, named.to(rows.device))
        return found if isinstance(class_ids, SparseTargets) else found.view(class_ids.shape)

    @opaque
    @told
    @torch.no_grad()
    @in_full_precision
    def top_k(self, hidden: Tensor, k: int, *, exclude: TargetsLike | None = None) -> tuple[Tensor, Tensor]:
        """The k best classes of each example, exactly: (scores (…, k), class ids (…, k)), best first.

        Args:
            hidden: (…, d).
            k: from 1 to D.
            exclude: classes that must not be named, for each example, as targets are given. Where fewer than k are
                left, the rest of the row has score −inf.

        Raises:
            TypeError, ValueError: k out of range; wrong shapes, types or class ids.
        """
        rows, lead = checked_hidden(hidden, self.in_features, self.device)
        if not 1 <= k <= self.num_classes:
            raise ValueError(f"Parameter `k` should be in [1, num_classes = {self.num_classes}]. Found {k}.")
        scores, ids = self._best(rows, k, None if exclude is None else self._targets(exclude, lead, rows))
        return scores.view(*lead, k), ids.view(*lead, k)

    @abstractmethod
    def _best(self, hidden: Tensor, k: int, banned: SparseTargets | None) -> tuple[Tensor, Tensor]:
        """(m, k) scores and ids of the best classes, best first, without those ``banned``."""

    def to_scorer(self) -> nn.Module:
        """An ordinary module whose outputs (…, D) are the head's scores, with a copy of the weights."""
        return HeadScorer(self)

    def refused(self, error: Exception) -> None:
        """Called if a method refuses what it was given, before the error is raised."""

    def monitors(self) -> dict[str, float]:
        """Figures of the last training step, by name, for a log."""
        return {}

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the weights are."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The type of the weights."""

    def _targets(self, targets: TargetsLike, lead: torch.Size, rows: Tensor) -> SparseTargets:
        return checked_targets(targets, lead, self.num_classes).to(rows.device)

    def prepare_targets(self, targets: SparseTargets) -> SparseTargets:
        """The same targets as the loss takes them; best done to a batch on the host, before it moves to a GPU."""
        return targets

    def _widened(self, hidden: Tensor) -> Tensor:
        """Hidden layer in the head's type, with a unit that is always 1 if the head has a bias."""
        hidden = hidden.to(self.dtype)
        return torch.cat([hidden, hidden.new_ones(hidden.shape[0], 1)], dim=1) if self.has_bias else hidden

    def __repr__(self) -> str:
        """One line; parts such as samplers and trees are named in `extra_repr`."""
        return f"{type(self).__name__}({self.extra_repr()})"

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, num_classes={self.num_classes}"


class ParameterHead(Head):
    """An output layer over ordinary parameters, whatever their structure.

    An example with several targets has the mean of its targets' losses, by the targets' values if they have some.
    One without targets has no loss and is left out of means. In eval mode a head that defines probabilities gives
    the exact −log p, so that losses of different heads can be compared.
    """

    #: whether the head defines probabilities, so that `log_prob` is there
    has_probabilities: bool = True
    #: whether gradients of the parameters are sparse: torch.optim.SparseAdam, Adagrad or SGD take them
    sparse: bool = False

    def _counted_losses(self, hidden: Tensor, targets: SparseTargets) -> tuple[Tensor, Tensor]:
        hidden = hidden.to(self.dtype)
        if self.training or not self.has_probabilities:
            losses = self._losses(hidden, targets)
        else:
            losses = -mean_over_targets(self._log_probs(hidden, targets), targets)
        return losses, targets.counts > 0

    @abstractmethod
    def _losses(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        """(m,) the training loss of each example, anything if it has no targets; hidden is in the head's type."""

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


def first_rows(
    rows: int, in_features: int, bias: bool, device: torch.device | str | None, dtype: torch.dtype | None
) -> nn.Parameter:
    """(rows, d) weights to begin with, of the size of those in torch.nn.Linear; a column of zeros more for a bias."""
    values = torch.empty(rows, in_features + bias, device=device, dtype=dtype)
    nn.init.normal_(values, std=(3.0 * in_features) ** -0.5)
    values[:, in_features:] = 0.0
    return nn.Parameter(values)
