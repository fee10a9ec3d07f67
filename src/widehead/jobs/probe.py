"""Whether users like the given one should rank too, found out before a recommender's run.

A run whose neighbours rank keeps pairs aside to choose their weights by, which costs it some of its recall: worth it
where they gain much, as on synonyms of a thesaurus, and a loss where they gain little. So before the run a quarter of
the users stand in for all, and for its network a small one: as many units for each user, that is a quarter of them, and
the output layer in closed form, W = YᵀH(HᵀH + ρI)⁻¹. It ranks pairs that are hidden from it, alone and with neighbours.
Fewer units for all users would not do: how well neighbours rank hardly depends on the network, so that they gain on any
data if that is narrow (gowalla: 97 % beside 64 units, 23 % beside 256, 3 % beside its 1,024).

Letters: n users, D items, d units of the small network; H (n, d) encodings of users, Y (n, D) their targets, ρ a ridge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from widehead.data import Examples, Interactions, RowExamples, Vocabulary
from widehead.data.sparse import CSR, brought_together
from widehead.heads import ExactHead
from widehead.jobs.base import Chosen, check_same
from widehead.jobs.neighbours import csr_of_bags
from widehead.jobs.user_votes import FEWEST, UserVotes, enough, hidden_pairs
from widehead.kinds import configure
from widehead.losses import SquaredError
from widehead.models import WideNetwork
from widehead.options import TrainingConfig
from widehead.split import Dealt, Share, dealt

if TYPE_CHECKING:
    from widehead.jobs.recommender import Recommender

VOTERS = 500
"""Training users that vote in a run whose neighbours rank because the probe says so."""

_PART, _FEWEST = 0.25, 4_000  # of the users, and how many at least: both tell of the gain, but many cost too much
_HELD = 0.2  # of these users, whose hidden pairs are ranked
# Of the metrics, that neighbours must gain. A quarter of the users says more than all: see recipes/LOG.md.
_WORTH = 0.25
_BLOCK = 1 << 14  # users


@dataclass(frozen=True)
class Probe(Chosen):
    """Whether neighbours rank in a run, and what that was decided by.

    Attributes:
        neighbours: how many training users vote in the run; 0: none.
        because: why nothing was tried, "" if it was.
        users, width: n and d. places: users whose hidden pairs were ranked. before, after: metrics on half of them,
            those of the small network alone, and with neighbours by weights that the other half fits.
    """

    what = "whether neighbours should rank"

    neighbours: int
    because: str = ""
    users: int = 0
    width: int = 0
    places: int = 0
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        what = f"{self.neighbours} neighbours rank too" if self.neighbours else "neighbours do not rank"
        if self.because:
            return f"By default {what}: {self.because}."
        found = ", ".join(f"{name} {before:.4f} → {self.after[name]:.4f}" for name, before in self.before.items())
        asked = f"a gain of {100 * _WORTH:.0f} % is asked for"
        return f"By default {what}: {found}, tried beside {self.width} units on {self.users:,} users, where {asked}."

    def table(self) -> tuple[list[str], list[list[str]]]:
        """The metrics of the small network, without and with neighbours."""
        if self.because:
            return ["neighbours"], [["none"]]
        return ["metric", "small network", "with neighbours"], [
            [name, f"{before:.4f}", f"{self.after[name]:.4f}"] for name, before in self.before.items()
        ]

    def decided(self) -> Mapping[str, int]:
        return {"neighbours": self.neighbours}

    def check(self) -> None:
        check_same(self.before, self.after)


def probed(job: Recommender, config: TrainingConfig, share: Share | None = None) -> Probe:
    """Whether neighbours gain clearly on pairs that are hidden from a small network and from them.

    Of several processes, all of which call it, the first one finds out, with what the others give it of some users.

    Args:
        job: of the training pairs.
        config: of the run, whose width, seed and cutoffs count.
        share: of the users; None if this process has all.
    """
    matrix = job.train.matrix
    if not enough(matrix, share):
        return Probe(0, f"fewer than {FEWEST:,} users have two items, too few to choose by")
    some = some_users(matrix, _PART, _FEWEST, config.seed, dealt(share, job.num_users))
    return Probe.by_first(share, lambda: _probed(job, config, some))


def _probed(job: Recommender, config: TrainingConfig, some: CSR) -> Probe:
    """`probed` by ``some`` users."""
    part = some.shape[0] / job.num_users
    width = max(1, round(part * job.usual_width(config)[0]))
    seen, users, hidden = hidden_pairs(some, config.seed, _HELD)
    held = RowExamples(seen[users], hidden)
    known = Interactions(seen, [], Vocabulary([]), np.zeros(some.shape[0], dtype=np.int64))
    network = small_network(type(job)(known, job.ratings), width, config)
    cutoff = min(config.at[0], some.shape[1])  # memory for more, which a run refuses later, may not be there
    names = [name for name in job.metric_names((cutoff,)) if not name.startswith("precision")]
    found = UserVotes(seen, VOTERS, asked=held.inputs).chosen(network, held, names, config.seed)
    gain = np.mean([found.after[name] / max(value, 1e-4) for name, value in found.before.items()]) - 1.0
    return Probe(VOTERS if gain >= _WORTH else 0, "", some.shape[0], width, len(users), found.before, found.after)


def some_users(matrix: CSR, part: float, fewest: int, seed: int, among: Dealt | None = None) -> CSR:
    """A part of the rows, so many at least if there are, and the columns in which these have entries.

    Args:
        among: all rows, if ``matrix`` has those of this process alone: all processes call it then, and have the same.
    """
    n = matrix.shape[0] if among is None else among.total
    drawn = np.sort(np.random.default_rng([seed, n]).permutation(n)[: max(round(part * n), fewest)])
    rows = matrix[drawn] if among is None else brought_together(matrix, among, drawn)
    return rows[:, np.flatnonzero(rows.getnnz(axis=0))].tocsr()


def small_network(job: Recommender, width: int, config: TrainingConfig) -> WideNetwork:
    """A network of d units as the job's default begins it, with the output layer that training by it tends to.

    Args:
        config: its seed counts.
    """
    return small_networks(job, [width], config)[0]


@torch.no_grad()
def small_networks(job: Recommender, widths: list[int], config: TrainingConfig) -> list[WideNetwork]:
    """`small_network` of some widths, the largest first, of which the others have the leading units."""
    plain = replace(
        configure(job.name, out=config.out, seed=config.seed, ratings=job.ratings), width=widths[0], neighbours=0
    )
    with torch.random.fork_rng(devices=[]):  # the run draws as if there had been no probe
        torch.manual_seed(config.seed)
        encoder, examples = job.encoder(plain), job.examples(plain)
        job.start(encoder, examples, plain)
        heads = [ExactHead(width, job.sizes["classes"], SquaredError()) for width in widths]
    gram, met = products_of(encoder.eval(), examples, (job.sizes["classes"], widths[0]))
    for head, width in zip(heads, widths, strict=True):
        head.load_weight(least_squares(gram[:width, :width], met[:, :width], plain.head_ridge))
    return [WideNetwork(_Leading(encoder, head.in_features), head).eval() for head in heads]


class _Leading(nn.Module):
    """The first ``width`` units of an encoder."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder, self.width = encoder, width

    def forward(self, inputs: Any) -> Tensor:
        hidden: Tensor = self.encoder(inputs)[:, : self.width]
        return hidden.contiguous()


@torch.no_grad()
def products_of(encoder: nn.Module, examples: Examples, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """HᵀH (d, d) float64 and YᵀH of a shape (D, d), float32."""
    gram, met = torch.zeros(shape[1], shape[1], dtype=torch.float64), torch.zeros(shape)
    for start in range(0, len(examples), _BLOCK):
        inputs, targets = examples.batch(np.arange(start, min(start + _BLOCK, len(examples))))
        hidden = encoder(inputs)
        gram += hidden.double().T @ hidden.double()
        met += torch.from_numpy(csr_of_bags(targets, shape[0]).T @ hidden.numpy())
    return gram, met


def least_squares(gram: Tensor, met: Tensor, ridge: float) -> Tensor:
    """W = YᵀH(HᵀH + ρI)⁻¹ (D, d), float32, with ``ridge`` times the mean eigenvalue of HᵀH for ρ.

    Args:
        gram, met: HᵀH and YᵀH.
    """
    gram = gram + ridge * gram.trace() / len(gram) * torch.eye(len(gram), dtype=gram.dtype)
    factors, weight = torch.linalg.lu_factor(gram), torch.empty_like(met, memory_format=torch.contiguous_format)
    for block, solved in zip(met.split(_BLOCK), weight.split(_BLOCK), strict=True):  # float64 of some rows alone
        solved.copy_(torch.linalg.lu_solve(*factors, block.double().T).T)
    return weight
