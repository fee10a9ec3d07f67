"""Training: the loop, the log, checkpoints and the folder of a run."""

from widehead.training.contract import Evaluator, Outcome
from widehead.training.folder import RunFolder
from widehead.training.log import read_metrics
from widehead.training.loop import Trainer

__all__ = ["Evaluator", "Outcome", "RunFolder", "Trainer", "read_metrics"]
