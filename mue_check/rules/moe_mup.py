"""muP for mixtures (arXiv 2508.09752), as its published code does it: llm-random/llm-random, research/muP_MoE.

``train/train.py`` has the init std and the learning rate of each parameter, ``mup_modules.py`` the multiplier of the
logits, and ``moe_layers/moe_gating.py`` the router. m_d is the ratio of widths. AdamW gets one weight decay and one
eps for all parameters. The down-projections and the attention's output start at std (2 n_blocks)^-1/2, which does not
depend on the width. A router's weights are a softmax over all experts and are not normalized again over the active
ones: the router variant ``moge`` does that.
"""

from dataclasses import dataclass

from mue_check.rules.prescription import Factors, Prescription
from mue_check.rules.ratios import Ratios
from mue_check.rules.roles import DOWN, HIDDEN, Role
from mue_check.spec import Scenario


@dataclass(frozen=True, kw_only=True)
class MoeMuP:
    """Experts and attention are hidden weights. The router is in neither table of the code: std 1, LR 1.

    ``scaled_router``: the code's switch ``use_mup_router``, which multiplies the router's logits by 1/m_d. The models
    here have no such multiplier, so it is folded into the router's values.
    """

    name: str
    summary: str
    scaled_router: bool = False

    def prescribe(self, reference: Scenario, target: Scenario) -> Prescription:
        """Factors of every role of ``target`` relative to ``reference``."""
        ratios = Ratios.of(reference, target)
        return Prescription.of(self.name, reference, target, lambda role: self._factors(role, ratios))

    def _factors(self, role: Role, ratios: Ratios) -> Factors:
        m = 1 / ratios.width
        if role is Role.UNEMBEDDING:
            return Factors(forward_multiplier=m)
        if role is Role.ROUTER:
            return Factors(init_std=m, lr=m, weight_decay=1 / m, eps=1 / m) if self.scaled_router else Factors()
        if role not in HIDDEN:
            return Factors()
        last = role in DOWN or role is Role.ATTENTION_OUT
        return Factors(init_std=(m / ratios.depth if last else m) ** 0.5, lr=m)


MOE_MUP = MoeMuP(name="moe_mup", summary="muP for mixtures: experts as hidden weights, the router unscaled")
MOE_MUP_SCALED_ROUTER = MoeMuP(
    name="moe_mup_scaled_router",
    summary="moe_mup with the router's logits multiplied by 1/rho_d, which makes it an output weight",
    scaled_router=True,
)
