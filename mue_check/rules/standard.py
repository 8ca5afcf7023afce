"""Standard parameterization: init by fan-in, everything else unscaled. It serves as the positive control."""

from dataclasses import dataclass

from mue_check.rules.fan_in import fan_in
from mue_check.rules.prescription import Factors, Prescription
from mue_check.rules.roles import HIDDEN, Role
from mue_check.spec import REFERENCE_HEAD_WIDTH, Scenario


@dataclass(frozen=True, kw_only=True)
class Standard:
    """SP as it is commonly used: hidden std fan-in^-1/2, one LR, one weight decay (arXiv 2203.03466, Table 3).

    Its only multiplier makes attention logits scale with 1/sqrt(d_head), because the models here use 1/d_head.
    """

    name: str = "standard"
    summary: str = "standard parameterization: init by fan-in, one learning rate, no multipliers"

    def prescribe(self, reference: Scenario, target: Scenario) -> Prescription:
        """Factors of every role of ``target``; a down-projection is relative to the reference's down-projection."""

        def factors(role: Role) -> Factors:
            std, multiplier = 1.0, 1.0
            if role in HIDDEN:
                std = (fan_in(role, reference.model) / fan_in(role, target.model)) ** 0.5
            if role is Role.ATTENTION_QKV:
                multiplier = (target.model.head_width / REFERENCE_HEAD_WIDTH) ** 0.5
            return Factors(init_std=std, forward_multiplier=multiplier)

        return Prescription.of(self.name, reference, target, factors)


STANDARD = Standard()
