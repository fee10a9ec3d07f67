"""What each job is called, takes and begins with: texts and tables, which need no torch. One file a job."""

import importlib
import pkgutil

from widehead.kinds.base import JOBS, Kind
from widehead.kinds.configure import configure

__all__ = ["JOBS", "Kind", "configure"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
