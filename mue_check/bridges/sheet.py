"""The values for a model that is known only by the names of its parameters: one line per role, and name patterns.

With the model itself, ``mue_check.param_groups`` does the same from its shapes and its measured multipliers.
"""

import fnmatch
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mue_check.audit.multipliers import CARRIERS
from mue_check.audit.prescribed import FOLDABLE, attention_scale, claimed_sum, folded
from mue_check.audit.roles import PATTERNS
from mue_check.errors import RuleError
from mue_check.rules import HyperParameters, Prescription, Role, Row, about_expansion, parse_role


@dataclass(frozen=True, kw_only=True)
class Line:
    """The values of one kind of parameter: a role, or the biases of a role whose matrices absorb a multiplier."""

    label: str
    row: Row
    fold: float


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """What a format renders.

    ``names``: (regular expression, label), the first that is found in a parameter's name decides. ``present``: the
    factors by which the model multiplies, by role. ``declared``: the user's name patterns. ``base_shapes``: the user's
    .bsh file, for mup.
    """

    prescription: Prescription
    base: HyperParameters
    lines: tuple[Line, ...]
    names: tuple[tuple[str, str], ...]
    present: Mapping[Role, float]
    declared: Mapping[str, Role]
    base_shapes: str = ""

    @classmethod
    def of(
        cls,
        prescription: Prescription,
        base: HyperParameters,
        *,
        roles: Mapping[str, str] | None = None,
        multipliers: Mapping[str, float] | None = None,
        base_shapes: str = "",
    ) -> "Sheet":
        """``roles`` maps name patterns to roles and comes before the known names; ``multipliers`` as in the audit."""
        declared = {pattern: parse_role(role) for pattern, role in (roles or {}).items()}
        present = {parse_role(role): value for role, value in (multipliers or {}).items()}
        for role, value in present.items():
            if role not in CARRIERS or not (math.isfinite(value) and value > 0):
                raise RuleError(
                    f"multipliers: {role}={value!r}: {role} must be one of {', '.join(sorted(CARRIERS))}, above 0"
                )
        for role in (*declared.values(), *present):
            prescription[role]  # a RuleError that lists the target's roles
        lines = tuple(_lines(prescription, base, present))
        return cls(
            prescription=prescription,
            base=base,
            lines=lines,
            names=tuple(_names(declared, {line.label for line in lines})),
            present=present,
            declared=declared,
            base_shapes=base_shapes,
        )

    def with_present(self, role: Role, value: float) -> "Sheet":
        """The same for a model that also multiplies this role's output by ``value``."""
        multipliers = {str(r): v for r, v in {**self.present, role: value}.items()}
        return Sheet.of(
            self.prescription, self.base, roles=self.declared, multipliers=multipliers, base_shapes=self.base_shapes
        )

    @property
    def betas(self) -> tuple[float, float]:
        """Both betas, which every rule gives to all roles."""
        row = self.lines[0].row
        return row.beta1, row.beta2

    def of_role(self, role: Role) -> Row:
        """The values of one role."""
        return next(line.row for line in self.lines if line.label == role)

    def header(self) -> list[str]:
        """What the values are for, and what the model's forward pass must do, as lines without comment signs."""
        p, b = self.prescription, self.base
        lines = [
            f"Rule {p.rule}, from {p.reference}",
            f"to {p.target}.",
            f"Base values: lr {b.lr:g}, weight decay {b.weight_decay:g}, init std {b.init_std:g}, eps {b.eps:g}, betas "
            f"{b.beta1:g} {b.beta2:g}.",
        ]
        folds = [
            f"{line.label} x {line.fold:.6g}" for line in self.lines if line.fold != 1 and line.label in list(Role)
        ]
        if folds:
            lines += [f"Forward multipliers are folded into init std, LR, weight decay and eps: {', '.join(folds)}."]
        if self.present:
            kept = ", ".join(f"{role} {value:g}" for role, value in self.present.items())
            lines += [f"The model must multiply in its forward pass, as declared: {kept}."]
        scale = attention_scale(p) / self.present.get(Role.ATTENTION_QKV, 1.0)
        if not math.isclose(scale, 1):
            lines += [
                f"Not in these values: attention logits must be scaled by {scale:.6g}/sqrt(d_head), in the model."
            ]
        if note := about_expansion(p):
            lines += [note]
        return [
            *lines,
            "Check the result: mue_check audit FACTORY with the same --reference, --target and base values.",
        ]


def _lines(p: Prescription, base: HyperParameters, present: Mapping[Role, float]) -> Iterator[Line]:
    rows = {Role(row.role): row for row in p.values(base)}
    biases = []
    for role, row in rows.items():
        fold = _fold(p, role, present)
        yield Line(label=str(role), row=folded(row, fold), fold=fold)
        if fold != 1 and role is not Role.UNEMBEDDING:  # the rule does not multiply the bias of the logits
            biases.append(Line(label=_bias_of(role), row=folded(rows[Role.BIAS], fold), fold=fold))
    yield from biases


def _fold(p: Prescription, role: Role, present: Mapping[Role, float]) -> float:
    """The rule's multiplier over the model's, if the role's matrix can absorb it."""
    if role not in FOLDABLE:
        return 1.0
    wanted, own = p[role].forward_multiplier, present.get(role, 1.0)
    if role is Role.EXPERT_DOWN:  # A on the branch and R on the weights act as one product
        claimed = claimed_sum(p)
        wanted, own = wanted * p[Role.ROUTER].forward_multiplier * claimed, own * present.get(Role.ROUTER, claimed)
    return 1.0 if math.isclose(wanted, own) else wanted / own


def _bias_of(role: str) -> str:
    return f"bias of {role}"


def _names(declared: Mapping[str, Role], labels: set[str]) -> Iterator[tuple[str, str]]:
    """The patterns of biases that follow their matrix, then those of the user, then the known names."""
    known = [(rf"(?:^|\.)(?:{p.tail})$", p.role) for p in PATTERNS if p.role in labels]
    own = [("^" + fnmatch.translate(glob), role) for glob, role in declared.items()]
    for expression, role in (*own, *known):
        if _bias_of(role) in labels:
            yield _of_bias(expression), _bias_of(role)
    yield from ((expression, str(role)) for expression, role in (*own, *known))


def _of_bias(expression: str) -> str:
    """The names of the biases that belong to the matrices with these names."""
    for weight, bias in ((r"(?:\.weight)?", r"(?:\.bias|_bias)"), (r"\.weight", r"\.bias")):
        if weight in expression:
            return expression.replace(weight, bias)
    return re.sub(r"(\)?\$|\)\\[Zz])$", r"_bias\1", expression)
