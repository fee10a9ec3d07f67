"""Rows of W split over the processes of torch.distributed: the same equations, each process with a part of the rows."""

from widehead.split.processes import RowSplit
from widehead.split.weights import SplitWeights

__all__ = ["RowSplit", "SplitWeights"]
