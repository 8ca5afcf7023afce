"""Measurements by name: each turns a cell into rows. Nothing here judges."""

from mue_check.measure import (
    coordinates,
    early_curve,
    gradient_noise,
    learning_curve,
    loss_grid,
    optimizer,
    routing,
    samples,
)
from mue_check.measure.measurement import Measurement

MEASUREMENTS: dict[str, Measurement] = {
    "loss_grid": loss_grid.LOSS_GRID,
    "coordinates": coordinates.COORDINATES,
    "early_curve": early_curve.EARLY_CURVE,
    "learning_curve": learning_curve.LEARNING_CURVE,
    "optimizer": optimizer.OPTIMIZER,
    "routing": routing.ROUTING,
    "gradient_noise": gradient_noise.GRADIENT_NOISE,
    "samples": samples.SAMPLED,
}

__all__ = ["MEASUREMENTS", "Measurement"]
