"""Prescription: for each role, the factors from a tuned reference to a target, and the resulting values."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Protocol

from mue_check.errors import RuleError
from mue_check.rules.roles import Role, parse_role, roles_of, starts_constant
from mue_check.spec import Scenario


@dataclass(frozen=True, kw_only=True)
class HyperParameters:
    """The tuned AdamW values of the reference. ``init_std`` is that of a block with unit expansion (H = d).

    The defaults are the published optimum of a language model with d = 128 (arXiv 2605.23893).
    """

    lr: float = 1e-3
    weight_decay: float = 0.1
    init_std: float = 0.01
    eps: float = 1e-8
    beta1: float = 0.9
    beta2: float = 0.95

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if not math.isfinite(value) or value < 0:
                raise RuleError(f"{f.name}={value}: must be finite and at least 0")
        for name in ("lr", "init_std"):
            if getattr(self, name) == 0:
                raise RuleError(f"{name}=0: must be above 0")
        for name in ("beta1", "beta2"):
            if not getattr(self, name) < 1:
                raise RuleError(f"{name}={getattr(self, name)}: must lie in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class Factors:
    """Target over reference, for one role. ``forward_multiplier`` is the target's value, not a ratio.

    ``one_minus_beta`` scales both 1 - beta1 and 1 - beta2 (arXiv 2512.22382).
    """

    init_std: float = 1.0
    lr: float = 1.0
    weight_decay: float = 1.0
    eps: float = 1.0
    one_minus_beta: float = 1.0
    forward_multiplier: float = 1.0

    def __mul__(self, other: "Factors") -> "Factors":
        """Both, one after the other."""
        return Factors(**{f.name: getattr(self, f.name) * getattr(other, f.name) for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the printed table: the values to set for one role in the target."""

    role: str
    init_std: float
    lr: float
    weight_decay: float
    eps: float
    beta1: float
    beta2: float
    forward_multiplier: float


@dataclass(frozen=True, kw_only=True)
class Prescription:
    """Role -> Factors for one target of one reference, under one rule."""

    rule: str
    reference: Scenario
    target: Scenario
    factors: Mapping[Role, Factors] = field(repr=False)

    @classmethod
    def of(
        cls, rule: str, reference: Scenario, target: Scenario, factors_of: Callable[[Role], Factors]
    ) -> "Prescription":
        """The prescription with ``factors_of`` every role that the target can have."""
        factors = {role: factors_of(role) for role in roles_of(target.model)}
        return cls(rule=rule, reference=reference, target=target, factors=factors)

    def __getitem__(self, role: Role | str) -> Factors:
        known = parse_role(role)
        try:
            return self.factors[known]
        except KeyError:
            raise RuleError(
                f"rule {self.rule!r} prescribes nothing for role {str(known)!r} in {self.target}: "
                f"it has {', '.join(self.factors)}"
            ) from None

    def with_factors(self, role: Role, **changes: float) -> "Prescription":
        """A copy with some factors of one role changed, for an experiment or a deliberate mistake."""
        return replace(self, factors={**self.factors, role: replace(self[role], **changes)})

    def times(self, factors: Mapping[Role, Factors]) -> "Prescription":
        """A copy whose factors are multiplied by these, for the roles that the target has."""
        return replace(
            self, factors={role: f * factors[role] if role in factors else f for role, f in self.factors.items()}
        )

    def values(self, base: HyperParameters) -> list[Row]:
        """The target's values, one row per role. Raises RuleError if a beta leaves [0, 1)."""
        rows = []
        for role, f in self.factors.items():
            betas = [1 - (1 - beta) * f.one_minus_beta for beta in (base.beta1, base.beta2)]
            for name, old, new in zip(("beta1", "beta2"), (base.beta1, base.beta2), betas, strict=True):
                if not 0 <= new < 1:
                    raise RuleError(
                        f"{name}={old:g} becomes {new:g} in {self.target} under rule {self.rule!r}: must lie in [0, 1)"
                    )
            rows.append(
                Row(
                    role=str(role),
                    # a constant has no spread
                    init_std=0.0 if starts_constant(role, self.target.model) else base.init_std * f.init_std,
                    lr=base.lr * f.lr,
                    weight_decay=base.weight_decay * f.weight_decay,
                    eps=base.eps * f.eps,
                    beta1=betas[0],
                    beta2=betas[1],
                    forward_multiplier=f.forward_multiplier,
                )
            )
        return rows


class Rule(Protocol):
    """A transfer rule: a pure function of (reference, target) with a name and a source."""

    @property
    def name(self) -> str:
        """The name on the command line."""
        ...

    @property
    def summary(self) -> str:
        """The rule in one line."""
        ...

    def prescribe(self, reference: Scenario, target: Scenario) -> Prescription:
        """The factors of every role that the target can have."""
        ...
