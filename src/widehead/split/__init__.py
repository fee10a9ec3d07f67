"""Rows of W split over the processes of torch.distributed: the same equations, each process with a part of the rows."""

from widehead.split.outputs import best_of_all, best_of_found, outputs_of_all
from widehead.split.peers import Member, Peers, draw_as_one, drawn_in_blocks
from widehead.split.processes import Form, RowSplit, split_by, telling
from widehead.split.reading import Batch, check_alike, gather_batch, no_targets, own_targets
from widehead.split.shares import Dealt, InTurn, Runs, Share, alike, dealt, totals
from widehead.split.tables import as_split, draw_table, first_table, gradient_of_rows, is_split, like, local
from widehead.split.weights import SplitWeights

__all__ = [
    "Batch",
    "Dealt",
    "Form",
    "InTurn",
    "Member",
    "Peers",
    "RowSplit",
    "Runs",
    "Share",
    "SplitWeights",
    "alike",
    "as_split",
    "best_of_all",
    "best_of_found",
    "check_alike",
    "dealt",
    "draw_as_one",
    "draw_table",
    "drawn_in_blocks",
    "first_table",
    "gather_batch",
    "gradient_of_rows",
    "is_split",
    "like",
    "local",
    "no_targets",
    "outputs_of_all",
    "own_targets",
    "split_by",
    "telling",
    "totals",
]
