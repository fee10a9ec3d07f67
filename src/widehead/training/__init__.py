"""Training: options, run folder, loop, checkpoints; and runs loaded again for use."""

from widehead.training.config import HEAD_OPTIMIZERS, JOB_DEFAULTS, JOBS, LOSSES, TrainingConfig
from widehead.training.folder import RunFolder
from widehead.training.jobs import Job, Prediction, build_network
from widehead.training.logging import read_metrics
from widehead.training.loop import Evaluator, Outcome, Trainer
from widehead.training.runs import Run, load_run, resume, train

__all__ = [
    "HEAD_OPTIMIZERS",
    "JOBS",
    "JOB_DEFAULTS",
    "LOSSES",
    "Evaluator",
    "Job",
    "Outcome",
    "Prediction",
    "Run",
    "RunFolder",
    "Trainer",
    "TrainingConfig",
    "build_network",
    "load_run",
    "read_metrics",
    "resume",
    "train",
]
