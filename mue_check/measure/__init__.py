"""Measurements by name: each turns a cell into rows. Nothing here judges."""

from collections.abc import Callable

from mue_check.data import Corpus
from mue_check.measure.coordinates import measure_coordinates
from mue_check.measure.early_curve import measure_early_curve
from mue_check.measure.gradient_noise import measure_gradient_noise
from mue_check.measure.learning_curve import measure_learning_curve
from mue_check.measure.loss_grid import measure_loss_grid
from mue_check.measure.optimizer import measure_optimizer
from mue_check.measure.routing import measure_routing
from mue_check.records import Cell, Columns

MEASUREMENTS: dict[str, Callable[[Cell, Corpus], Columns]] = {
    "loss_grid": measure_loss_grid,
    "coordinates": measure_coordinates,
    "early_curve": measure_early_curve,
    "learning_curve": measure_learning_curve,
    "optimizer": measure_optimizer,
    "routing": measure_routing,
    "gradient_noise": measure_gradient_noise,
}

OF_ONE_RUN = frozenset({"optimizer"})
"""Those that look at the first run alone; the rows of all others name the seed that they are of."""

__all__ = ["MEASUREMENTS", "OF_ONE_RUN"]
