"""Many short training runs as one: flat state over the run axis, and one step, captured on CUDA."""

from mue_check.training.run import Stack, training_step
from mue_check.training.state import RunState

__all__ = ["RunState", "Stack", "training_step"]
