"""Complete-muE (arXiv 2605.23893): width, depth, batch, duration and every routing axis in one rule.

Depth follows CompleteP with alpha = 1 (arXiv 2505.01618, Table 1); batch and duration follow
Complete(d)P (arXiv 2512.22382, Table 1). Both bridges live in three numbers: A = d / H_act on the
feed-forward branch, R = a on the normalized routed sum, sqrt(H_act / d) on the down-projection's init.
"""

import math
from dataclasses import dataclass
from typing import Literal

from mue_check.rules.prescription import Factors, Prescription
from mue_check.rules.roles import DOWN, HIDDEN, VECTORS, Role, roles_of
from mue_check.spec import Experts, Scenario

WeightDecayRule = Literal["keep_lr_times_wd", "unscaled"]
FinalProjection = Literal["tp5", "as_printed"]


@dataclass(frozen=True, kw_only=True)
class CompleteMuE:
    """The rule in its variants.

    ``weight_decay_rule``: "keep_lr_times_wd" multiplies hidden decay by rho_d (CompleteP, Complete(d)P);
    "unscaled" leaves it alone across width, as Complete-muE's own table does.
    ``final_projection``: "tp5" is {std 1, LR 1, multiplier 1/rho_d} (arXiv 2203.03466, Table 8);
    "as_printed" is the worked example's {rho_d^-1/2, rho_d^-1, 1/rho_d}, whose logit updates shrink with width.
    """

    name: str
    summary: str
    weight_decay_rule: WeightDecayRule = "keep_lr_times_wd"
    final_projection: FinalProjection = "tp5"

    def prescribe(self, reference: Scenario, target: Scenario) -> Prescription:
        """Factors of every role of ``target`` relative to the tuned ``reference``."""
        return Prescription(
            rule=self.name,
            reference=reference,
            target=target,
            factors={role: self._factors(role, reference, target) for role in roles_of(target.model)},
        )

    def _factors(self, role: Role, reference: Scenario, target: Scenario) -> Factors:
        model = target.model
        rho_d = model.width / reference.model.width
        m_depth = model.depth / reference.model.depth
        rho_batch = target.tokens_per_step / reference.tokens_per_step
        rho_data = rho_batch * target.steps / reference.steps
        drift = math.sqrt(rho_batch / rho_data)

        std, lr, weight_decay, eps, multiplier = 1.0, 1.0, 1.0, 1.0, 1.0
        if role in HIDDEN:
            std, lr, eps = rho_d**-0.5, 1 / rho_d, 1 / (rho_d * m_depth)
        if role in DOWN:
            std *= math.sqrt(model.expansion)
            multiplier = 1 / (model.expansion * m_depth)
        if role is Role.ATTENTION_OUT:
            multiplier = 1 / m_depth
        if role is Role.ROUTER and isinstance(model.feed_forward, Experts):
            # R = a for weights that sum to 1; a / G where each of G groups sums to 1 by itself
            multiplier = model.feed_forward.activated / (model.feed_forward.weight_sum or 1.0)
        if role is Role.UNEMBEDDING:
            multiplier = 1 / rho_d
            if self.final_projection == "as_printed":
                std, lr = rho_d**-0.5, 1 / rho_d
        if self.weight_decay_rule == "keep_lr_times_wd" and role not in VECTORS:
            weight_decay = 1 / lr
        return Factors(
            init_std=std,
            lr=lr * drift,
            weight_decay=weight_decay * drift,
            eps=eps / drift,
            one_minus_beta=rho_batch / rho_data,
            forward_multiplier=multiplier,
        )


COMPLETE_MUE = CompleteMuE(
    name="complete_mue",
    summary="Complete-muE with the final projection of TP5 and width-compensated weight decay",
)
COMPLETE_MUE_LITERAL = CompleteMuE(
    name="complete_mue_literal",
    summary="Complete-muE exactly as its worked example prints it (over-scales the final projection)",
    weight_decay_rule="unscaled",
    final_projection="as_printed",
)
