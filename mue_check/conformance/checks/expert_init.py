"""The experts' init: equal in distribution, not in value, with a std that follows one expert's fan-in."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mue_check.conformance.block import ProbedBlock
from mue_check.conformance.block_probe import probe_block
from mue_check.conformance.check import BLOCKS, Check, CheckOutcome, failed, passed
from mue_check.conformance.checks.blockwise import blockwise, matrices_of
from mue_check.routing.factory import Shape

_SIGMAS = 6.0
"""Standard errors: with some thousand comparisons in a run, a false alarm stays below 1e-5."""
_SLACK = 0.01
_CENTERED = 0.1
ScalingLaw = Callable[[int, int], float]
Fans = Callable[[Shape], tuple[int, int]]
SCALING_LAWS: dict[str, ScalingLaw] = {
    "constant": lambda fan_in, fan_out: 1.0,
    "fan_in^-1/2": lambda fan_in, fan_out: float(fan_in**-0.5),
    "(fan_in + fan_out)^-1/2": lambda fan_in, fan_out: float((fan_in + fan_out) ** -0.5),
}
"""What a standard deviation may follow: normal(0, sigma); Kaiming and LeCun; Xavier (Glorot and Bengio 2010)."""
_READS: tuple[Fans, ...] = (lambda s: (s.d, s.f), lambda s: (s.d, 2 * s.f))  # the second if gate and up are fused
_WRITES: tuple[Fans, ...] = (lambda s: (s.f, s.d),)
_FANS: dict[str, tuple[Fans, ...]] = {"gate": _READS, "up": _READS, "down": _WRITES}
_EITHER = _READS + _WRITES


@dataclass(frozen=True, kw_only=True)
class _Std:
    """Standard deviation of one matrix over all experts; ``error`` is the standard error of its logarithm."""

    value: float
    error: float


@blockwise
@torch.no_grad()
def expert_init(block: ProbedBlock) -> CheckOutcome:
    """Experts are drawn from one distribution, not equal, with a std that is constant or follows one expert's fan-in.

    Measured here, and with each of d, f and E doubled.
    """
    block = probe_block(block.built.case, randomize=False)
    matrices = matrices_of(block, dict(block.values))
    for name, matrix in matrices.items():
        bad = ~matrix.isfinite().flatten(1).all(1)
        if bool(bad.any()):
            worst = f"{name} of expert {int(bad.nonzero()[0])}"
            return failed(f"{name} is not finite: is it uninitialized?", worst=worst)
    stds = {name: _std(matrix) for name, matrix in matrices.items()}
    zero = [name for name, std in stds.items() if not std.value]
    if "gate" in zero or "up" in zero or len(zero) == len(stds):
        return failed(f"{' and '.join(zero)} start at 0, so all experts are equal", worst=zero[0])
    whole = torch.cat([matrix.flatten(1) for matrix in matrices.values()], dim=1)
    different = len({tuple(row) for row in whole.tolist()})
    if different < block.experts:
        return failed(
            f"only {different} of {block.experts} experts differ: equal ones get equal gradients and stay equal"
        )
    for name, matrix in matrices.items():
        if stds[name].value:
            failure = _unequal_stds(name, matrix) or _not_random(name, matrix)
            if failure is not None:
                return failure
    return _follows_a_law(block, stds)


def _unequal_stds(name: str, matrix: Tensor) -> CheckOutcome | None:
    """A failure if one expert's standard deviation differs from the others'."""
    each = [_std(expert) for expert in matrix]
    median = float(torch.tensor([std.value for std in each]).median())
    excess = [abs(math.log(max(s.value, 1e-30) / median)) - _SIGMAS * s.error - _SLACK for s in each]
    worst = max(range(len(each)), key=lambda e: excess[e])
    if excess[worst] <= 0:
        return None
    measured = f"{name} has standard deviation {each[worst].value:.3g} in expert {worst} and {median:.3g} in most"
    return failed(measured, worst=f"{name} of expert {worst}")


def _not_random(name: str, matrix: Tensor) -> CheckOutcome | None:
    """A failure if a matrix is equal in all experts, or its entries do not have mean 0."""
    if torch.equal(matrix, matrix[:1].expand_as(matrix)):
        return failed(f"{name} is the same in every expert, and not 0", worst=name)
    flat = matrix.double().flatten()
    mean, size = float(flat.mean()), float(flat.square().mean().sqrt())
    if abs(mean) > _CENTERED * size + _SIGMAS * size * flat.numel() ** -0.5:
        return failed(f"the entries of {name} have mean {mean:.3g} at a size of {size:.3g}, expected 0", worst=name)
    return None


def _follows_a_law(block: ProbedBlock, stds: dict[str, _Std]) -> CheckOutcome:
    """Which scaling law the standard deviations follow, by doubling d, f and E in turn."""
    case, shape = block.built.case, block.built.case.shape
    doubled = {"d": case.at(d=2 * shape.d), "f": case.at(f=2 * shape.f), "E": case.at(experts=2 * shape.experts)}
    larger = {}
    for size, at in doubled.items():
        probed = probe_block(at, randomize=False)
        larger[size] = {name: _std(m) for name, m in matrices_of(probed, dict(probed.values)).items()}
    measured = []
    for name, std in stds.items():
        if not std.value:
            measured.append(f"{name} starts at 0")
            continue
        grown = {size: math.log(max(larger[size][name].value, 1e-30) / std.value) for size in doubled}
        error = {size: _SIGMAS * math.hypot(std.error, larger[size][name].error) + _SLACK for size in doubled}

        def holds(
            law: ScalingLaw, fans: Fans, grown: dict[str, float] = grown, error: dict[str, float] = error
        ) -> bool:
            expected = {size: math.log(law(*fans(at.shape)) / law(*fans(shape))) for size, at in doubled.items()}
            return all(abs(grown[size] - expected[size]) <= error[size] for size in doubled)

        pairs = ((law_name, fans) for law_name in SCALING_LAWS for fans in _FANS.get(name, _EITHER))
        laws = [(law_name, fans) for law_name, fans in pairs if holds(SCALING_LAWS[law_name], fans)]
        if not laws:
            powers = " ".join(f"{size}^{grown[size] / math.log(2):.2f}" for size in doubled)
            return failed(
                f"the standard deviation of {name}, {std.value:.3g}, scales as {powers}: neither constant nor by one "
                "expert's fan-in",
                worst=name,
                causes=(25,),
            )
        law_name, fans = laws[0]
        factor = std.value / SCALING_LAWS[law_name](*fans(shape))
        scaling = "constant" if law_name == "constant" else f"{factor:.2g} * {law_name}"
        measured.append(f"{name} {std.value:.3g}, {scaling}")
    return passed("; ".join(measured))


def _std(matrix: Tensor) -> _Std:
    """With the error from the fourth moment, which is smaller for uniform weights than for normal ones."""
    flat = matrix.double().flatten()
    square = float(flat.square().mean())
    if square == 0:
        return _Std(value=0.0, error=0.0)
    kurtosis = float(flat.pow(4).mean()) / square**2
    return _Std(value=square**0.5, error=(max(kurtosis - 1, 0.1) / (4 * flat.numel())) ** 0.5)


CHECKS = (Check(run=expert_init, source="huggingface/transformers PR#42306", candidates=BLOCKS),)
