"""Measurements by name: each turns a cell into rows. Nothing here judges."""

from mue_check.measure.coordinates import COORDINATES
from mue_check.measure.gradient_noise import GRADIENT_NOISE
from mue_check.measure.losses import EARLY_CURVE, LEARNING_CURVE, LOSS_GRID
from mue_check.measure.measurement import Measurement
from mue_check.measure.optimizer import OPTIMIZER
from mue_check.measure.routing import ROUTING
from mue_check.measure.samples import SAMPLED

MEASUREMENTS: dict[str, Measurement] = {
    "loss_grid": LOSS_GRID,
    "coordinates": COORDINATES,
    "early_curve": EARLY_CURVE,
    "learning_curve": LEARNING_CURVE,
    "optimizer": OPTIMIZER,
    "routing": ROUTING,
    "gradient_noise": GRADIENT_NOISE,
    "samples": SAMPLED,
}

__all__ = ["MEASUREMENTS", "Measurement"]
