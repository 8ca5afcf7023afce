"""Standard parameterization: init by fan-in, everything else unscaled; the positive control of every axis."""

from dataclasses import dataclass

from mue_check.rules.prescription import Factors, Prescription
from mue_check.rules.roles import DOWN, HIDDEN, Role, roles_of
from mue_check.spec import ModelSpec, Scenario


def fan_in(role: Role, model: ModelSpec) -> int:
    """Inputs of one output unit: the feed-forward's own width for a down-projection, else d."""
    return model.feed_forward.hidden if role in DOWN else model.width


@dataclass(frozen=True, kw_only=True)
class Standard:
    """SP as people use it: hidden std fan-in^-1/2, one LR, one decay, no multipliers (arXiv 2203.03466, Table 3)."""

    name: str = "standard"
    summary: str = "standard parameterization: init by fan-in, one learning rate, no multipliers"

    def prescribe(self, reference: Scenario, target: Scenario) -> Prescription:
        """Factors of every role of ``target``; a down-projection is compared with the reference's own."""

        def std(role: Role) -> float:
            if role not in HIDDEN:
                return 1.0
            return float((fan_in(role, reference.model) / fan_in(role, target.model)) ** 0.5)

        return Prescription(
            rule=self.name,
            reference=reference,
            target=target,
            factors={role: Factors(init_std=std(role)) for role in roles_of(target.model)},
        )


STANDARD = Standard()
