"""Many short trainings as one: flat state over the run axis, one step function, captured on CUDA."""

from mue_check.training.run import Stack, training_step
from mue_check.training.state import RunState

__all__ = ["RunState", "Stack", "training_step"]
