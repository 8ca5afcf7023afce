"""How the experts start: all alike, none equal, and with a size that follows one expert's own fan-in."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mue_check.conformance.block import Block
from mue_check.conformance.block_probe import open_block
from mue_check.conformance.case import Case
from mue_check.conformance.checks.blockwise import BLOCKS, blockwise, matrices_of
from mue_check.conformance.registry import Finding, check, failed, passed
from mue_check.routing.factory import Shape

_SIGMAS = 6.0
"""Standard errors: with some thousand comparisons in a run, chance stays below 1e-5."""
_SLACK = 0.01
_CENTRED = 0.1
Law = Callable[[int, int], float]
Fans = Callable[[Shape], tuple[int, int]]
LAWS: dict[str, Law] = {
    "constant": lambda fan_in, fan_out: 1.0,
    "fan_in^-1/2": lambda fan_in, fan_out: float(fan_in**-0.5),
    "(fan_in + fan_out)^-1/2": lambda fan_in, fan_out: float((fan_in + fan_out) ** -0.5),
}
"""What a standard deviation may follow: normal(0, sigma); Kaiming and LeCun; Xavier (Glorot and Bengio 2010)."""
_READS: tuple[Fans, ...] = (lambda s: (s.d, s.f), lambda s: (s.d, 2 * s.f))  # the second where gate and up are one
_WRITES: tuple[Fans, ...] = (lambda s: (s.f, s.d),)
_FANS: dict[str, tuple[Fans, ...]] = {"gate": _READS, "up": _READS, "down": _WRITES}
_EITHER = _READS + _WRITES


@dataclass(frozen=True, kw_only=True)
class _Size:
    """Standard deviation of one matrix over all experts; ``error`` is that of its logarithm."""

    std: float
    error: float
    zero: bool


@check(
    "expert-init",
    law="experts start alike and not equal, with a standard deviation that follows one expert's fan-in or is constant",
    source="huggingface/transformers PR#42306",
    candidates=BLOCKS,
)
def expert_init(case: Case) -> Finding:
    """Measure every expert here, and all of them with each size doubled."""
    return blockwise(lambda _: _at_init(case))(case)


@torch.no_grad()
def _at_init(case: Case) -> Finding:
    block = open_block(case, stir=False)
    matrices = matrices_of(block, dict(block.values))
    for name, matrix in matrices.items():
        bad = ~matrix.isfinite().flatten(1).all(1)
        if bool(bad.any()):
            return failed(
                f"{name} is not finite: was it ever written?", worst=f"{name} of expert {int(bad.nonzero()[0])}"
            )
    sizes = {name: _size(matrix) for name, matrix in matrices.items()}
    zero = [name for name, size in sizes.items() if size.zero]
    if "gate" in zero or "up" in zero or len(zero) == len(sizes):
        return failed(f"{' and '.join(zero)} start at 0: nothing tells the experts apart", worst=zero[0])
    whole = torch.cat([matrix.flatten(1) for matrix in matrices.values()], dim=1)
    different = len({tuple(row) for row in whole.tolist()})
    if different < block.experts:
        return failed(
            f"only {different} of {block.experts} experts differ: equal ones get equal gradients and stay equal"
        )
    for name, matrix in matrices.items():
        if not sizes[name].zero:
            found = _unlike(name, matrix) or _drawn(name, matrix)
            if found is not None:
                return found
    return _follows(block, sizes)


def _unlike(name: str, matrix: Tensor) -> Finding | None:
    """A failure where one expert's standard deviation is not that of the others."""
    each = [_size(expert) for expert in matrix]
    typical = float(torch.tensor([size.std for size in each]).median())
    apart = [abs(math.log(max(s.std, 1e-30) / typical)) - _SIGMAS * s.error - _SLACK for s in each]
    worst = max(range(len(each)), key=lambda e: apart[e])
    if apart[worst] <= 0:
        return None
    words = f"{name} has standard deviation {each[worst].std:.3g} in expert {worst} and {typical:.3g} in most"
    return failed(words, worst=f"{name} of expert {worst}")


def _drawn(name: str, matrix: Tensor) -> Finding | None:
    """A failure where a matrix is the same in all experts, or its entries are not spread around 0."""
    if torch.equal(matrix, matrix[:1].expand_as(matrix)):
        return failed(f"{name} is the same in every expert, and not 0", worst=name)
    flat = matrix.double().flatten()
    mean, size = float(flat.mean()), float(flat.square().mean().sqrt())
    if abs(mean) > _CENTRED * size + _SIGMAS * size * flat.numel() ** -0.5:
        return failed(
            f"the entries of {name} have mean {mean:.3g} at a size of {size:.3g}: drawn around 0?", worst=name
        )
    return None


def _follows(block: Block, sizes: dict[str, _Size]) -> Finding:
    """Which law the sizes follow, by doubling d, f and E one after the other."""
    case, shape = block.built.case, block.built.case.shape
    doubled = {"d": case.at(d=2 * shape.d), "f": case.at(f=2 * shape.f), "E": case.at(experts=2 * shape.experts)}
    other = {}
    for what, larger in doubled.items():
        built = open_block(larger, stir=False)
        other[what] = {name: _size(m) for name, m in matrices_of(built, dict(built.values)).items()}
    words = []
    for name, size in sizes.items():
        if size.zero:
            words.append(f"{name} starts at 0")
            continue
        grown = {what: math.log(max(other[what][name].std, 1e-30) / size.std) for what in doubled}
        error = {what: _SIGMAS * math.hypot(size.error, other[what][name].error) + _SLACK for what in doubled}

        def holds(law: Law, fans: Fans, grown: dict[str, float] = grown, error: dict[str, float] = error) -> bool:
            said = {what: math.log(law(*fans(of.shape)) / law(*fans(shape))) for what, of in doubled.items()}
            return all(abs(grown[what] - said[what]) <= error[what] for what in doubled)

        found = [(law, fans) for law in LAWS for fans in _FANS.get(name, _EITHER) if holds(LAWS[law], fans)]
        if not found:
            powers = " ".join(f"{what}^{grown[what] / math.log(2):.2f}" for what in doubled)
            said = f"the standard deviation of {name}, {size.std:.3g}, goes as {powers}"
            return failed(f"{said}: neither constant nor by one expert's fan-in", worst=name, causes=(25,))
        law, fans = found[0]
        times = "constant" if law == "constant" else f"{size.std / LAWS[law](*fans(shape)):.2g} * {law}"
        words.append(f"{name} {size.std:.3g}, {times}")
    return passed("; ".join(words))


def _size(matrix: Tensor) -> _Size:
    """The error from the fourth moment: uniform weights say more than normal ones."""
    flat = matrix.double().flatten()
    square = float(flat.square().mean())
    if square == 0:
        return _Size(std=0.0, error=0.0, zero=True)
    kurtosis = float(flat.pow(4).mean()) / square**2
    return _Size(std=square**0.5, error=(max(kurtosis - 1, 0.1) / (4 * flat.numel())) ** 0.5, zero=False)
