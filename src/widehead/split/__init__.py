"""Rows of W split over the processes of torch.distributed: the same equations, each process with a part of the rows."""

from widehead.split.peers import Peers, draw_as_one
from widehead.split.processes import RowSplit
from widehead.split.processes import _telling as telling
from widehead.split.weights import SplitWeights

__all__ = ["Peers", "RowSplit", "SplitWeights", "draw_as_one", "telling"]
