"""Softmax over retrieved classes and a sampled tail.

Letters: m examples, n classes, d width, nnz targets in all; k retrieved classes, l draws from the tail;
W (n, d) weights, o = HWᵀ + b outputs; S retrieved ids, S' = S ∪ targets, T the tail's draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from widehead.errors import check_choice, check_number, check_whole
from widehead.heads.contract import checked_hidden
from widehead.heads.gumbel import lazy_gumbel_sample
from widehead.heads.linear import LinearHead
from widehead.heads.tail import Complement, Drawn, uniform_tail
from widehead.heads.upkeep import IndexKind, Upkeep
from widehead.losses import mean_over_targets
from widehead.split import Form, best_of_found, gather_batch, local
from widehead.targets import SparseTargets, starts_run

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class RetrievedSoftmaxHead(LinearHead):
    """Softmax loss over k retrieved classes, kept exactly, and l classes sampled from the rest, which stand for it.

    With S' = S ∪ {targets} and T drawn with replacement outside S', class j with probability q_j in each draw:

        log Ẑ = logsumexp({o_i : i ∈ S'} ∪ {o_j − log(l q_j) : j ∈ T}),     ℓ = log Ẑ − o_y,

    and q = 1/(n − |S'|) for a uniform tail. Gradients are those of this loss: ∂ℓ/∂h = −w_y + Σ p̂ w and ∂ℓ/∂w_i =
    (p̂_i − 1[i = y]) h with p̂ = exp(o − log Ẑ) on S' and exp(o)/(l q Ẑ) on T; a class drawn twice counts twice.

    **Bias.** Ẑ is unbiased whatever the index finds, misses or believes: S is a mere set of ids, logits come from the
    present weights, and T is drawn outside the set that was really found. log Ẑ, and so the training loss, is low by
    about ½ Var(Ẑ)/Z²; `relative_std` estimates √(Var(Ẑ)/Z²) from the tail that was drawn (low if heavy classes are
    seldom drawn). In eval mode the loss is that of the full softmax.

    **The batch's own set** (``shared``, the default). One S' and one T serve all examples: scores are one dense
    product and gradients have each class once. Every example looks for about 2k/m classes, at least 16, and the batch
    keeps the k with the largest Σ softmax(o) over its examples. Ẑ is unbiased for each example. The noise of T is
    common to the batch, so it does not average out over it; but S' is larger than what an example finds itself, and
    less is left to T. Measured relative error of ∇W, on a word model with n = 33,278 and m = 64: 0.15 with
    k = l = 730, 0.08 with cells, 0.07 with l = 3000; 0.05 with 730 + 730 classes of each example's own.
    Without ``shared`` each example has k retrieved classes and l draws of its own: O(m(k + l)d) memory.

    **Tail.** "uniform", or "cells": by the index's cells, q_j ∝ 0.9 exp(h·(mean row of j's cell))/Σ + 0.1/n outside
    S', the batch's mean if ``shared``.

    **Index.** Built at the first training step, and anew after weights are loaded, moved or copied; it is not in the
    state_dict. See `widehead.heads.upkeep.Upkeep` for when it is refreshed.

    **If k + l ≥ n/4**, training computes the full softmax: `is_full` is True, and gradients are dense (`sparse` is
    False). Otherwise the gradient of the table is sparse, for torch.optim.SparseAdam, Adagrad or SGD.

    Source: Igbinedion, Phillips, "Fast Softmax Sampling for Deep Neural Networks" (CS231N poster, 2017), whose printed
    equations differ from the above in four places that cannot be meant: in the loss the second sum is over the
    retrieved classes again instead of the sampled ones; the factor (n − k)/l is inverted in the gradient of h; and in
    the gradient of w it is missing for sampled classes, as is the factor h. Mussmann, Levy, Ermon (UAI 2017) for
    `sample` and the relative variance (at most n/(kl) · mass of S · mass of the rest, with the exact best k); Levy,
    Chan, Ermon, "LSH Softmax" (2017).

    Args:
        in_features: d.
        num_classes: n.
        retrieved: k, of an example, or of the batch if ``shared``; None for 4√n, or 12√n if ``shared``.
        tail: l, likewise, at least 2.
        tail_kind: "uniform" or "cells", which needs an index of FAISS.
        shared: whether examples of a batch share S' and T.
        index: "exhaustive" (exact, torch), "ivf" (FAISS, on a GPU if it was built for GPUs), or "auto": ivf for more
            than 2,000 classes on the CPU, or a million on such a GPU, else exhaustive.
        recall: what the index is tuned to find of the best classes, if about 16√n rows a query are enough for it
            (rows without structure would be searched nearly all, and Ẑ is unbiased at any recall).
        refresh_every: training steps between refreshes of the index.
        drift_limit: `drift` above which it is refreshed earlier.
        mesh: as in `LinearHead`: each process has an index of its rows, and finds classes for the examples of all; the
            best are taken, and rank 0 draws the tail. Found exactly (``index="exhaustive"``), they are those of one
            process with all examples. Not with a tail of "cells".
        bias, sparse, device, dtype: as in `SampledHead`.

    Raises:
        ValueError: an option out of range.
        ImportError: FAISS is needed and not installed.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        retrieved: int | None = None,
        tail: int | None = None,
        tail_kind: Literal["uniform", "cells"] = "uniform",
        shared: bool = True,
        index: IndexKind = "auto",
        recall: float = 0.9,
        refresh_every: int = 200,
        drift_limit: float = 0.4,
        bias: bool = False,
        sparse: bool = True,
        mesh: DeviceMesh | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if tail_kind == "cells" and mesh is not None:
            raise ValueError(
                'A tail of "cells" follows the index of all rows, so they should not be split over processes (`mesh`). '
                'Take tail_kind="uniform", or leave out the mesh.'
            )
        super().__init__(in_features, num_classes, bias=bias, mesh=mesh, device=device, dtype=dtype)
        default = math.ceil((_SHARED if shared else _OWN) * math.sqrt(num_classes))
        self.retrieved = default if retrieved is None else retrieved
        self.tail = default if tail is None else tail
        check_whole("retrieved", self.retrieved)
        check_whole("tail", self.tail, 2)
        check_choice("tail_kind", tail_kind, ("uniform", "cells"))
        self.tail_kind, self.shared = tail_kind, shared
        #: whether training computes the full softmax, with a dense gradient, because k + l ≥ n/4
        self.is_full = 4 * (self.retrieved + self.tail) >= num_classes
        self.sparse = sparse and not self.is_full
        self.upkeep = Upkeep(index, recall, refresh_every, drift_limit, tail_kind == "cells")
        self._reset_monitors()
        self._check_alike(self.retrieved, self.tail, shared)

    def _reset_monitors(self) -> None:
        #: () std(Ẑ)/Z of the last training step, mean over the batch, from its tail terms
        self.relative_std = torch.zeros((), device=self.device, dtype=self.dtype)
        #: () standard deviation of the index's scores minus present ones of the last step's retrieved classes
        self.drift = torch.zeros((), device=self.device, dtype=self.dtype)

    def monitors(self) -> dict[str, float]:
        """ "relative_std": that of the estimated normaliser."""
        return {"relative_std": float(self.relative_std)}

    def _losses(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        if self.is_full:
            normalizer, outputs = self._full_outputs(hidden, targets)
        else:
            normalizer, outputs = (self._shared if self.shared else self._each)(self._widened(hidden), targets)
        return mean_over_targets(normalizer[targets.example_ids] - outputs, targets)

    # -- one set of classes for the batch -----------------------------------------------------------------------

    def _shared(self, widened: Tensor, targets: SparseTargets) -> tuple[Tensor, Tensor]:
        """log Ẑ (m,) and outputs of targets (nnz,); S' and T are the batch's, so one matrix product does."""
        with torch.no_grad():
            scores, found, of_all, own = self._search(widened, targets)
            members = torch.cat([_heaviest(scores, found, self.retrieved), of_all.class_ids])
            ids, log_weights, repeats = _merged(members, self._draw(members[None], widened))
        _, _, ids, rows = self._joint_rows(ids[:0], ids)
        with torch.no_grad():
            log_weights, repeats = self._of_first(log_weights, ids.shape), self._of_first(repeats, ids.shape)
            scores, found = scores[own], found[own]
        terms = torch.addmm(log_weights, widened, rows.T)
        normalizer = torch.logsumexp(terms, dim=1)
        with torch.no_grad():
            self._note_shared_error(terms, normalizer, repeats)
            columns = torch.searchsorted(ids, found).clamp_max(ids.numel() - 1)
            kept = (ids[columns] == found) & (repeats[columns] == 0)
            self._note_drift(scores, terms.gather(1, columns), kept)
        return normalizer, terms[targets.example_ids, torch.searchsorted(ids, targets.class_ids)]

    def _per_query(self, m: int) -> int:
        """Classes to look for by an example, so that about `_OVERSAMPLE` times k candidates are found by the batch."""
        return min(self.retrieved, max(_LEAST_PER_QUERY, math.ceil(_OVERSAMPLE * self.retrieved / max(1, m))))

    def _note_shared_error(self, terms: Tensor, normalizer: Tensor, repeats: Tensor) -> None:
        parts = (terms - normalizer[:, None]).exp()
        drawn = (repeats > 0).to(parts.dtype)
        mean = parts @ drawn / self.tail
        square = parts.square() @ (drawn / repeats.clamp_min(1)) / self.tail
        self._note_error(square - mean.square())

    # -- a set of classes for each example ----------------------------------------------------------------------

    def _each(self, widened: Tensor, targets: SparseTargets) -> tuple[Tensor, Tensor]:
        """log Ẑ (m,) and outputs of targets (nnz,); S' and T are each example's own."""
        with torch.no_grad():
            scores, found, of_all, own = self._search(widened, targets)
            sets = Complement(torch.cat([found, _padded(of_all)], dim=1), self.num_classes)
            drawn = self._draw(sets.ordered, widened)
            drawn_ids = self._of_first(drawn.ids, drawn.ids.shape)[own]
            log_weights = self._of_first(drawn.log_weights, drawn.ids.shape)[own]
            scores, found, ordered = scores[own], found[own], sets.ordered[own]
        ids = torch.cat([ordered.clamp_min(0), drawn_ids], dim=1)
        outputs = torch.bmm(self._rows(ids), widened[:, :, None]).squeeze(2)
        members = ordered.shape[1]
        kept = outputs[:, :members].masked_fill(~sets.first[own], -torch.inf)
        tail = outputs[:, members:] + log_weights
        normalizer = torch.logsumexp(torch.cat([kept, tail], dim=1), dim=1)
        with torch.no_grad():
            parts = (tail - normalizer[:, None]).exp()
            self._note_error(parts.square().mean(1) - parts.mean(1).square())
            columns = torch.searchsorted(ordered, found)
            self._note_drift(scores, outputs.gather(1, columns), found >= 0)
        return normalizer, self._target_outputs(widened, targets)

    # -- search and tail ----------------------------------------------------------------------------------------

    def _search(self, widened: Tensor, targets: SparseTargets) -> tuple[Tensor, Tensor, SparseTargets, slice]:
        """Scores and classes (M, k) that are found for the examples of all processes, their targets, which are here."""
        if self.split is None:
            found = self._search_here(widened, self._wanted(len(widened)))
            return *found, targets, slice(None)
        batch = gather_batch(self.split, Form.of(self.table), widened, targets, what="reading rows")
        every = slice(len(batch.hidden))
        scores, ids = best_of_found(self.split, batch.hidden, self._wanted(every.stop), self._search_here, every)
        return scores, ids.masked_fill(scores == -torch.inf, -1), batch.targets, batch.own(self.split.rank)

    def _search_here(self, widened: Tensor, k: int) -> tuple[Tensor, Tensor]:
        scores, found = self.upkeep.search(local(self.table), widened, k, self.drift)
        first = 0 if self.split is None else self.split.first
        return scores.to(widened.dtype), torch.where(found >= 0, found + first, found)

    def _wanted(self, m: int) -> int:
        return self._per_query(m) if self.shared else self.retrieved

    def _of_first(self, part: Tensor, shape: torch.Size) -> Tensor:
        """What rank 0 has, so that rounding elsewhere does not tell."""
        if self.split is None:
            return part
        return self.split.from_first_(part.contiguous() if part.shape == shape else part.new_empty(shape))

    def _draw(self, members: Tensor, widened: Tensor) -> Drawn:
        cells = self.upkeep.cell_tail
        if cells is None:
            return uniform_tail(members, self.num_classes, self.tail, self.dtype)
        return cells.draw(members, cells.log_cell_weights(widened, shared=self.shared), self.tail)

    def _note_error(self, variance: Tensor) -> None:
        """``variance`` (m,) over the l draws of a draw's part of Ẑ, which is l times smaller in their mean."""
        unbiased = variance.clamp_min(0) * self.tail / (self.tail - 1)
        self.relative_std = (self.tail * unbiased).sqrt().sum() / max(1, variance.numel())

    def _note_drift(self, old: Tensor, new: Tensor, counted: Tensor) -> None:
        """``old``, ``new`` (m, k) scores of the index and of present weights, counted if ``counted``."""
        if self.upkeep.index is None:
            return
        change = torch.where(counted, old - new, 0.0)
        number = counted.sum().clamp_min(1)
        mean = change.sum() / number
        self.drift = (change.square().sum() / number - mean.square()).clamp_min(0).sqrt()

    # -- exact draws --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, hidden: Tensor, n: int = 1) -> Tensor:
        """(…, n) class ids drawn independently from the exact softmax of ``hidden`` (…, d), by lazy Gumbels.

        The method holds only if the best 4√D classes are known without a miss (or within a known gap, which no
        approximate index gives), so they are found by `top_k`, exactly, whatever index the training uses. Then each
        draw costs the logits of about √D/4 classes more.

        Raises:
            ValueError: n < 1.
        """
        check_number("n", n, 1)
        if self.split is not None:
            raise ValueError(
                "Draws from the exact softmax need all rows. Found a head whose rows are split over processes: load "
                "its state into one without a `mesh`."
            )
        k = min(self.num_classes, math.ceil(4.0 * math.sqrt(self.num_classes)))
        rows, lead = checked_hidden(hidden, self.in_features, self.device)
        widened = self._widened(rows)
        scores, ids = self._best(rows, k, None)

        def outputs(examples: Tensor, classes: Tensor) -> Tensor:
            return torch.linalg.vecdot(widened[examples], self.table[classes])

        draws = [lazy_gumbel_sample(scores, ids, self.num_classes, outputs) for _ in range(n)]
        return torch.stack(draws, dim=1).view(*lead, n)

    # -- the index's life ---------------------------------------------------------------------------------------

    def _forget_index(self) -> None:
        self.upkeep.forget()
        self._reset_monitors()

    def load_weight(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().load_weight(weight, bias)
        self._forget_index()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RetrievedSoftmaxHead:
        super()._apply(fn, recurse)
        self._forget_index()
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._forget_index()

    def extra_repr(self) -> str:
        own = f"retrieved={self.retrieved}, tail={self.tail}, tail_kind={self.tail_kind!r}, shared={self.shared}"
        return f"{super().extra_repr()}, {own}, index={self.upkeep.kind!r}, full={self.is_full}"


_OWN, _SHARED = 4.0, 12.0  # default k and l, times √n; rows that a batch shares cost little
_OVERSAMPLE = 2  # candidates that a batch looks for, over the classes it keeps; 4 was slower and no better
_LEAST_PER_QUERY = 16


def _runs(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Of ids in order (n,): whether each is the first of its equals, and the number of its run."""
    first = starts_run(ids)
    return first, first.cumsum(0) - 1


def _heaviest(scores: Tensor, found: Tensor, budget: int) -> Tensor:
    """At most ``budget`` of the classes found (m, k), those of the largest Σ over examples of softmax(scores).

    −1 fills the places of classes that were found several times, so that no size depends on what was found.
    """
    parts = torch.where(found >= 0, torch.softmax(scores, dim=1), 0.0).reshape(-1)
    ids, order = found.reshape(-1).sort()
    first, run = _runs(ids)
    mass = torch.zeros_like(parts).index_add_(0, run, parts[order])[run]
    mass = torch.where(first & (ids >= 0), mass, -1.0)
    if ids.numel() > budget:
        mass, best = mass.topk(budget)
        ids = ids[best]
    return torch.where(mass >= 0.0, ids, -1)


def _merged(members: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor, Tensor]:
    """Members (s,) and one row of draws as (ids sorted without repeats, their log weights, times each was drawn).

    Repeats and −1 among the members are left out: to know how many are left is the one wait for a GPU.
    """
    ids, order = torch.cat([members, drawn.ids[0]]).sort(stable=True)
    first, run = _runs(ids)
    is_drawn = order >= members.numel()
    repeats = torch.zeros_like(ids).index_add_(0, run, is_drawn.long())[run]
    log_weights = torch.cat([drawn.log_weights.new_zeros(members.shape), drawn.log_weights[0]])[order]
    log_weights = log_weights + torch.where(is_drawn, repeats, 1).to(log_weights.dtype).log()
    kept = (first & (ids >= 0)).nonzero().squeeze(1)
    return ids[kept], log_weights[kept], torch.where(is_drawn, repeats, 0)[kept]


def _padded(targets: SparseTargets) -> Tensor:
    """(m, K) targets of each example, −1 if it has fewer than the largest number K."""
    ids, examples = targets.class_ids, targets.example_ids
    table = torch.full((len(targets), targets.most), -1, device=ids.device)
    columns = torch.arange(ids.numel(), device=ids.device) - targets.offsets[examples]
    return table.index_put_((examples, columns), ids)
