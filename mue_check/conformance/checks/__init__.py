"""The checks, one file per theme; importing a file registers its checks in the order in which they are asked."""

from mue_check.conformance.checks import (  # noqa: I001  (in this order they are asked)
    running,
    weights,
    selection,
    gradients,
    symmetry,
    numerics,
    state,
    capacity,
    auxiliary,
    fit,
    recomposition,
    dense,
    shared_part,
    expert_gradients,
    gradient_split,
    expert_init,
)

__all__ = [
    "auxiliary",
    "capacity",
    "dense",
    "expert_gradients",
    "expert_init",
    "fit",
    "gradient_split",
    "gradients",
    "numerics",
    "recomposition",
    "running",
    "selection",
    "shared_part",
    "state",
    "symmetry",
    "weights",
]
