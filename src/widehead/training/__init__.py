"""Training: options, run folder, loop, checkpoints; and runs loaded again for use."""

from widehead.training.comparison import Result, compare, contenders, objective, ranked, verdict
from widehead.training.config import LOSSES, TrainingConfig
from widehead.training.defaults import JOBS, defaults_of
from widehead.training.folder import RunFolder
from widehead.training.heads import HEAD_OPTIMIZERS, HEADS
from widehead.training.jobs import Job, Prediction, build_network
from widehead.training.logging import read_metrics
from widehead.training.loop import Evaluator, Outcome, Trainer
from widehead.training.runs import Run, load_run, resume, train

__all__ = [
    "HEADS",
    "HEAD_OPTIMIZERS",
    "JOBS",
    "LOSSES",
    "Evaluator",
    "Job",
    "Outcome",
    "Prediction",
    "Result",
    "Run",
    "RunFolder",
    "Trainer",
    "TrainingConfig",
    "build_network",
    "compare",
    "contenders",
    "defaults_of",
    "load_run",
    "objective",
    "ranked",
    "read_metrics",
    "resume",
    "train",
    "verdict",
]
