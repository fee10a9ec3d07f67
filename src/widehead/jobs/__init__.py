"""Jobs: what there is to learn, one file a job."""

import importlib
import pkgutil

from widehead.jobs.base import Job, JobData, Prediction
from widehead.jobs.judging import Given
from widehead.jobs.network import build_network
from widehead.kinds import JOBS, configure

__all__ = ["JOBS", "Given", "Job", "JobData", "Prediction", "build_network", "configure"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
