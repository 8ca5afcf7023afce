"""Complete-muE (arXiv 2605.23893): width, depth, batch, duration and every routing axis in one rule.

Depth follows CompleteP with alpha = 1 (arXiv 2505.01618, Table 1); batch and duration follow Complete(d)P (arXiv
2512.22382, Table 1). Three factors make both bridges: A = d / H_act on the feed-forward branch, R = a on the normalized
routed sum, and sqrt(H_act / d) on the down-projection's init. H_act is the active feed-forward width.
"""

import math
from dataclasses import dataclass
from typing import Literal

from mue_check.rules.prescription import Factors, Prescription
from mue_check.rules.ratios import Ratios
from mue_check.rules.roles import DOWN, HIDDEN, VECTORS, Role
from mue_check.spec import Experts, ModelSpec, Scenario

WeightDecayRule = Literal["keep_lr_times_wd", "unscaled"]
FinalProjection = Literal["tp5", "cdp", "as_printed"]


@dataclass(frozen=True, kw_only=True)
class CompleteMuE:
    """Complete-muE and its variants.

    ``weight_decay_rule``: "keep_lr_times_wd" multiplies hidden decay by rho_d (CompleteP, Complete(d)P);
    "unscaled" does not scale it with width, as in Complete-muE's own table.
    ``final_projection``: "tp5" is {std 1, LR 1, multiplier 1/rho_d} (arXiv 2203.03466, Table 8); "cdp" is
    {rho_d^-1, rho_d^-1, 1} (arXiv 2512.22382), which trains in the same way; "as_printed" is the worked example's
    {rho_d^-1/2, rho_d^-1, 1/rho_d}, whose logit updates shrink with width.
    """

    name: str
    summary: str
    weight_decay_rule: WeightDecayRule = "keep_lr_times_wd"
    final_projection: FinalProjection = "tp5"

    def prescribe(self, reference: Scenario, target: Scenario) -> Prescription:
        """Factors of every role of ``target`` relative to the tuned ``reference``."""
        ratios = Ratios.of(reference, target)

        def factors(role: Role) -> Factors:
            return ratios.with_batch_and_duration(self._factors(role, target.model, ratios))

        return Prescription.of(self.name, reference, target, factors)

    def _factors(self, role: Role, model: ModelSpec, ratios: Ratios) -> Factors:
        rho_d, m_depth = ratios.width, ratios.depth
        std, lr, weight_decay, eps, multiplier = 1.0, 1.0, 1.0, 1.0, 1.0
        if role in HIDDEN:
            std, lr, eps = rho_d**-0.5, 1 / rho_d, 1 / (rho_d * m_depth)
        if role in DOWN:
            std *= math.sqrt(model.expansion)
            multiplier = 1 / (model.expansion * m_depth)
        if role is Role.ATTENTION_OUT:
            multiplier = 1 / m_depth
        if role is Role.ROUTER and isinstance(model.feed_forward, Experts):
            # R = a for weights that sum to 1; a / G if each of G groups sums to 1
            multiplier = model.feed_forward.activated / (model.feed_forward.weight_sum or 1.0)
        if role is Role.UNEMBEDDING:
            match self.final_projection:
                case "tp5":
                    multiplier = 1 / rho_d
                case "cdp":
                    # W' = m W with m = 1/rho_d. Its gradient is 1/m times that of W, so eps scales with 1/m. The same
                    # Adam ratio must move it m times as far, so LR scales with m
                    std, lr, eps = 1 / rho_d, 1 / rho_d, rho_d
                case "as_printed":
                    std, lr, multiplier = rho_d**-0.5, 1 / rho_d, 1 / rho_d
        if self.weight_decay_rule == "keep_lr_times_wd" and role not in VECTORS:
            weight_decay = 1 / lr
        return Factors(init_std=std, lr=lr, weight_decay=weight_decay, eps=eps, forward_multiplier=multiplier)


def about_expansion(prescription: Prescription) -> str:
    """How a reference whose expansion is not 1 must have been tuned; "" if its expansion is 1."""
    expansion = prescription.reference.model.expansion
    if not prescription.rule.startswith("complete_mue") or expansion == 1:
        return ""
    return (
        f"The rule is relative to unit expansion (H = d): the reference must have been tuned with A = "
        f"{1 / expansion:.4g} and with its down-projection at {expansion**0.5:.4g} x init_std."
    )


COMPLETE_MUE = CompleteMuE(
    name="complete_mue",
    summary="Complete-muE with the final projection of TP5 and width-compensated weight decay",
)
COMPLETE_MUE_LITERAL = CompleteMuE(
    name="complete_mue_literal",
    summary="Complete-muE exactly as in its worked example, which scales the final projection twice",
    weight_decay_rule="unscaled",
    final_projection="as_printed",
)
COMPLETE_MUE_CDP = CompleteMuE(
    name="complete_mue_cdp",
    summary="Complete-muE with the final projection of Complete(d)P; trains exactly like complete_mue",
    final_projection="cdp",
)
