"""The role of each parameter and output, from how its shape grows between two sizes, and the exponents of that role.

The exponents are those of muP for any optimizer whose updates are aligned with the activations (Adam, SGD, Shampoo):
outputs of growing layers keep their RMS and the RMS of their change (arXiv 2203.03466, appendix J). A multiplier may be
folded into a matrix, which shifts the exponents of its RMS and of its change alike. So matrices are judged by the
change relative to the RMS, and the multiplier by the module's output.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from mue_check.errors import unknown
from mue_check.own_model.candidate import ModelError
from mue_check.own_model.measure import WHOLE, Coordinates, Key

Range = tuple[float, float]
STAYS: Range = (0.0, 0.0)
_LEAST = 0.05
"""An axis that grows by a smaller exponent does not grow."""


class Growth(StrEnum):
    """What an axis changes: the fan-in of matrices, the number of experts or other parts, of blocks, or no shape."""

    WIDTH = "width"
    PARTS = "parts"
    DEPTH = "depth"
    NONE = "none"


_CHANGES: Mapping[Growth, Range | None] = {
    Growth.WIDTH: (-0.5, 0.0),
    Growth.PARTS: (0.0, 0.5),
    Growth.DEPTH: None,
    Growth.NONE: None,
}
"""The change of outputs. Width: in a batch of more tokens than the layer is wide, the directions of the tokens' updates
are as good as random, and their sum falls as n^-1/2 until the layer is wider. Parts: among more experts, scores are
closer, and more tokens go to another expert after an update. Depth and others: not judged, since the first and the last
of a few blocks differ from those between."""


class ModelRole(StrEnum):
    """What a parameter or an output does, as far as scaling is concerned."""

    INPUT = "input"
    HIDDEN = "hidden"
    OUTPUT = "output"
    VECTOR = "vector"
    FIXED = "fixed"
    ORTHOGONAL = "orthogonal"
    ACTIVATION = "activation"
    READOUT = "readout"
    RAW_READOUT = "raw_readout"
    BLOCK = "block"
    INSIDE = "inside"
    FREE = "free"


ROLES = {
    ModelRole.INPUT: "a matrix whose fan-in does not grow, such as an embedding",
    ModelRole.HIDDEN: "a matrix whose fan-in and fan-out grow",
    ModelRole.OUTPUT: "a matrix whose fan-in alone grows: a readout or a router",
    ModelRole.VECTOR: "a bias or a gain",
    ModelRole.FIXED: "a parameter of which nothing grows",
    ModelRole.ORTHOGONAL: "a matrix whose updates are orthogonalized (Muon)",
    ModelRole.ACTIVATION: "an output that must stay",
    ModelRole.READOUT: "an output of fixed size: it may shrink at initialization and must move alike",
    ModelRole.RAW_READOUT: "logits before a multiplier that the model may apply afterwards",
    ModelRole.BLOCK: "a residual block",
    ModelRole.INSIDE: "an output within a residual block, along an axis on which its scale is a matter of form",
    ModelRole.FREE: "shown and not judged",
}
_OF_PARAMETERS = frozenset(list(ROLES)[:6])


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The role of one coordinate and the ranges of its exponents; None is not judged.

    ``relative``: the change is judged over the RMS, where that is not zero.
    """

    role: ModelRole
    rms: Range | None = None
    change: Range | None = None
    relative: Range | None = None


@dataclass(frozen=True, kw_only=True)
class Sized:
    """The coordinates of one seed at the smallest and the largest size."""

    sizes: tuple[float, float]
    small: Coordinates
    large: Coordinates

    def growth(self, key: Key) -> tuple[float, ...]:
        """The exponent with which each axis of a shape grows."""
        shapes = self.small.shapes[key], self.large.shapes[key]
        if len(shapes[0]) != len(shapes[1]):
            return ()
        octaves = math.log(self.sizes[1] / self.sizes[0])
        exponents = (math.log(max(b, 1) / max(a, 1)) / octaves for a, b in zip(*shapes, strict=True))
        return tuple(e if abs(e) > _LEAST else 0.0 for e in exponents)

    def input_growth(self, module: str) -> float:
        """The exponent of the last axis of a module's input."""
        a, b = self.small.inputs.get(module, 1), self.large.inputs.get(module, 1)
        return math.log(b / a) / math.log(self.sizes[1] / self.sizes[0])

    @property
    def keys(self) -> list[Key]:
        """What both have, in the order of a forward pass."""
        return [key for key in self.small.shapes if key in self.large.shapes]


def expected_of(sized: Sized, declared: Mapping[str, str]) -> tuple[Growth, dict[Key, Expected], list[str]]:
    """What the axis changes, the role and exponents of each coordinate, and warnings.

    ``declared`` maps patterns of names to roles; the first that matches counts. ModelError: an unknown role, a pattern
    that matches nothing, a parameter whose role cannot be told from its growth.
    """
    fans = {key: _fans(sized, key) for key in sized.keys if key.kind == "parameter"}
    growth = _what_grows(sized, fans)
    found, undecided = dict[Key, Expected](), list[Key]()
    chosen, warnings = _declared(sized.keys, declared)
    for key in sized.keys:
        if key.kind == "added" and growth is Growth.WIDTH:
            continue  # the outputs of its parts are judged
        role = chosen.get(key) or _inferred(sized, key, fans.get(key), growth)
        if role is None:
            undecided.append(key)
        else:
            found[key] = _exponents(role, growth, (fans.get(key) or (0.0, 0.0))[0])
    if undecided:
        names = sorted({key.group.name for key in undecided})
        raise ModelError(
            f"the role of {', '.join(names[:4])}{', ...' * (len(names) > 4)} cannot be told from the growth of one "
            f"axis: declare it, for example roles = {{{names[0]!r}: 'input'}} (or 'output')"
        )
    return growth, found, warnings


def _declared(keys: Sequence[Key], declared: Mapping[str, str]) -> tuple[dict[Key, ModelRole], list[str]]:
    chosen: dict[Key, ModelRole] = {}
    warnings = []
    for pattern, name in declared.items():
        if name not in set(ModelRole):
            raise ModelError(f"roles: {pattern!r}: {unknown('role', name, ModelRole)}")
        role = ModelRole(name)
        of = [key for key in keys if role is ModelRole.FREE or (key.kind == "parameter") == (role in _OF_PARAMETERS)]
        matched = [key for key in of if fnmatchcase(key.name, str(pattern))]
        if not matched:
            first = ", ".join(dict.fromkeys(key.group.name for key in of[:40])) if of else "none"
            raise ModelError(f"roles: {pattern!r} matches no {_noun(role)}; there are {first[:300]}")
        if len(matched) == len(of):
            warnings.append(f"roles: {pattern!r} matches every {_noun(role)}, so nothing is inferred after it")
        for key in matched:
            chosen.setdefault(key, role)
    return chosen, warnings


def _noun(role: ModelRole) -> str:
    return "name" if role is ModelRole.FREE else "parameter" if role in _OF_PARAMETERS else "module"


def _fans(sized: Sized, key: Key) -> tuple[float, float] | None:
    """The exponents of fan-in and fan-out; None if the layout of a matrix that grows along one axis is not known."""
    growth = sized.growth(key)
    wide = [g for g in growth if g]
    if key.name.endswith("bias"):  # of a stack of experts, it has two axes
        return 0.0, growth[-1] if growth else 0.0
    if len(growth) < 2 or sum(n > 1 for n in sized.large.shapes[key]) < 2:
        return 0.0, max(growth, default=0.0)
    if len(growth) == 3 and growth[1:] == (0.0, 0.0):
        return 0.0, 0.0  # a stack of more experts
    if not wide:
        return 0.0, 0.0
    module = key.module
    kind = sized.small.kinds.get(module, "")
    if "Embedding" in kind or "Conv1D" in kind or "ConvTranspose" in kind:
        return growth[0], growth[1]
    if "Linear" in kind or "Conv" in kind or "Readout" in kind:
        return growth[1], growth[0]
    if len(wide) > 1:
        return wide[-1], wide[-2]
    if sized.input_growth(module) < _LEAST:
        return 0.0, wide[0]
    output = Key("output", module)
    # it reads what grows: a router, unless what it returns grows as well
    return (wide[0], 0.0) if output in sized.large.shapes and sized.growth(output)[-1:] == (0.0,) else None


def _what_grows(sized: Sized, fans: Mapping[Key, tuple[float, float] | None]) -> Growth:
    parameters = [key for key in sized.keys if key.kind == "parameter"]
    if any(fan is not None and fan[0] > 0 for fan in fans.values()):
        return Growth.WIDTH
    if any(g > 0 for key in parameters for g in sized.growth(key)):
        return Growth.PARTS
    return Growth.DEPTH if sized.small.shapes.keys() ^ sized.large.shapes.keys() else Growth.NONE


def _inferred(sized: Sized, key: Key, fans: tuple[float, float] | None, growth: Growth) -> ModelRole | None:
    if key.kind == "added":
        return ModelRole.BLOCK
    if key.kind == "output":
        return _role_of_output(sized, key, growth)
    if fans is None:
        return None
    shape = sized.large.shapes[key]
    if sum(n > 1 for n in shape) < 2 or key.name.endswith("bias"):
        return ModelRole.VECTOR
    match fans[0] > 0, fans[1] > 0:
        case True, True:
            return ModelRole.HIDDEN
        case True, False:
            return ModelRole.OUTPUT
        case False, True:
            return ModelRole.INPUT
    return ModelRole.FIXED


def _role_of_output(sized: Sized, key: Key, growth: Growth) -> ModelRole:
    growth_of_axes = sized.growth(key)
    # not the first of several axes: it is the batch, or the number of tokens of an expert
    grows = any(g > 0 for g in growth_of_axes[len(growth_of_axes) > 1 :])
    path = key.name.split(".")
    in_block = any(part.isdigit() for part in (path if growth is Growth.DEPTH else path[:-1]))
    if growth is Growth.WIDTH:
        if grows:
            return ModelRole.ACTIVATION
        whole = Key("output", WHOLE)
        is_logits = (
            key != whole and whole in sized.small.shapes and sized.small.shapes[key] == sized.small.shapes[whole]
        )
        return ModelRole.RAW_READOUT if is_logits else ModelRole.READOUT
    if growth is Growth.PARTS:
        return ModelRole.INSIDE if grows else ModelRole.ACTIVATION
    return ModelRole.INSIDE if in_block else ModelRole.ACTIVATION


def _exponents(role: ModelRole, growth: Growth, fan_in: float) -> Expected:
    """Ranges of exponents. Where a range is not a point, published forms differ, or a multiplier may be in two places.

    A readout may start at zero, so it may also start smaller than the published n^-1/2.
    Depth: each block adds L^-1 (CompleteP) or L^-1/2 (arXiv 2310.02244) of the stream. Along other numbers of parts, a
    probability falls as 1/N and a logit stays.
    """
    deep = growth is Growth.DEPTH
    match role:
        case ModelRole.HIDDEN:
            return Expected(role=role, change=(-fan_in, -fan_in), relative=(-fan_in / 2, -fan_in / 2))
        case ModelRole.OUTPUT:
            return Expected(role=role, change=(-fan_in, 0.0), relative=(-fan_in / 2, 0.0))
        case ModelRole.ORTHOGONAL:
            return Expected(role=role, relative=STAYS)
        case ModelRole.INPUT:
            return Expected(role=role, relative=STAYS, change=STAYS)
        case ModelRole.FIXED:
            form = (-0.5, 0.0) if deep else STAYS
            # what top_k changes in the init of a down-projection cannot be seen in a shape
            return Expected(role=role, change=form, relative=None if growth is Growth.NONE else form)
        case ModelRole.VECTOR:
            return Expected(role=role, change=(-0.5, 0.0) if deep else STAYS)
        case ModelRole.ACTIVATION:
            return Expected(role=role, rms=STAYS, change=_CHANGES[growth])
        case ModelRole.READOUT:
            return Expected(role=role, rms=(-1.0, 0.0), change=_CHANGES[growth])
        case ModelRole.RAW_READOUT:
            return Expected(role=role, relative=(-0.5, 1.0))
        case ModelRole.BLOCK:
            return Expected(role=role, rms=(-1.0, -0.5) if deep else STAYS)
        case ModelRole.INSIDE:
            return Expected(role=role, rms=None if growth is Growth.NONE else (-1.0, 0.0))
        case ModelRole.FREE:
            return Expected(role=role)
