"""Options: every option of a run in one table, and presets, which are defaults by name."""

from widehead.options.config import OPTIONS, TrainingConfig
from widehead.options.option import Option
from widehead.options.presets import Preset

__all__ = ["OPTIONS", "Option", "Preset", "TrainingConfig"]
