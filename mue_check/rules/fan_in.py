"""The rules of the muP family: each hidden matrix is scaled by a fan-in, without factors for experts (A = R = 1).

These are the rules that people use today, for comparison with Complete-muE. They scale a matrix with its number of
inputs, and do not account for the number of active experts. Their tables scale eps of hidden weights with width, so eps
follows the backbone's rho_d even where a matrix has another fan-in.
"""

from dataclasses import dataclass
from typing import Literal

from mue_check.rules.prescription import Factors, Prescription
from mue_check.rules.ratios import Ratios
from mue_check.rules.roles import DOWN, HIDDEN, INPUTS, VECTORS, Role
from mue_check.spec import ModelSpec, Scenario

Experts = Literal["own", "backbone", "dmft"]
Router = Literal["hidden", "output"]
Unembedding = Literal["tp5", "cdp"]
EXPERTS_DOWN = frozenset({Role.EXPERT_DOWN, Role.SHARED_DOWN})


def fan_in(role: Role, model: ModelSpec) -> int:
    """Inputs of one output unit: the feed-forward width for a down-projection (h for an expert), otherwise d."""
    return model.feed_forward.hidden if role in DOWN else model.width


@dataclass(frozen=True, kw_only=True)
class FanInRule:
    """One rule of the family; the defaults are CompleteP.

    ``depth``: residual branches and hidden eps x m_L^-1 (CompleteP, alpha = 1). ``batch_and_duration``: the global
    factors of Complete(d)P. ``unembedding``: "tp5" {std 1, LR 1, multiplier rho_d^-1} or "cdp" {rho_d^-1, rho_d^-1, 1}.
    ``embedding_eps_by_width``: eps of input embeddings x rho_d^-1. ``experts``: down-projections of experts scale with
    their "own" fan-in ratio h/H*, with the "backbone"'s rho_d, or have the "dmft" init. ``router``: scaled as a
    "hidden" matrix or as an "output" weight, which has no multiplier here because a router's forward_multiplier is R.
    """

    name: str
    summary: str
    depth: bool = True
    batch_and_duration: bool = False
    unembedding: Unembedding = "tp5"
    embedding_eps_by_width: bool = False
    experts: Experts = "own"
    router: Router = "hidden"

    def prescribe(self, reference: Scenario, target: Scenario) -> Prescription:
        """Factors of every role of ``target``; a down-projection is relative to the reference's down-projection."""
        ratios = Ratios.of(reference, target)

        def factors(role: Role) -> Factors:
            rho = fan_in(role, target.model) / fan_in(role, reference.model)
            f = self._factors(role, rho, ratios)
            return ratios.with_batch_and_duration(f) if self.batch_and_duration else f

        return Prescription.of(self.name, reference, target, factors)

    def _factors(self, role: Role, rho: float, ratios: Ratios) -> Factors:
        rho_d, m_depth = ratios.width, ratios.depth if self.depth else 1.0
        if role in EXPERTS_DOWN and self.experts == "backbone":
            rho = rho_d
        std, lr, eps, multiplier = 1.0, 1.0, 1.0, 1.0
        if role in HIDDEN:
            std, lr, eps = rho**-0.5, 1 / rho, 1 / (rho_d * m_depth)
        if role in EXPERTS_DOWN and self.experts == "dmft":
            std = rho_d**0.5 / rho  # (h/d)^-1 d^-1/2
        if role is Role.ROUTER and self.router == "output":
            # the gradient of an output weight does not shrink with width, but a scaled branch shrinks it with depth
            std, eps = 1 / rho_d, 1 / m_depth
        if role in DOWN or role is Role.ATTENTION_OUT:
            multiplier = 1 / m_depth
        if role in INPUTS and self.embedding_eps_by_width:
            eps = 1 / rho_d
        if role is Role.UNEMBEDDING:
            if self.unembedding == "tp5":
                multiplier = 1 / rho_d
            else:
                std, lr = 1 / rho_d, 1 / rho_d
        return Factors(
            init_std=std,
            lr=lr,
            weight_decay=1.0 if role in VECTORS else 1 / lr,
            eps=eps,
            forward_multiplier=multiplier,
        )


MUP = FanInRule(
    name="mup",
    summary="muP for Adam (TP5): width only, every matrix by its own fan-in",
    depth=False,
)
"""arXiv 2203.03466, Table 8: no depth, batch or duration factors."""

COMPLETEP = FanInRule(
    name="completep",
    summary="CompleteP with alpha = 1: muP and depth, every matrix by its own fan-in",
)
"""arXiv 2505.01618, Table 1."""

COMPLETEP_BLIND = FanInRule(
    name="completep_blind",
    summary="CompleteP unaware of experts: scales all of them with the backbone's width",
    experts="backbone",
)
"""What an implementation of CompleteP for dense models does to a mixture. On a dense model it is ``completep``."""

COMPLETED_P = FanInRule(
    name="completed_p",
    summary="Complete(d)P: CompleteP with batch and duration factors and its own unembedding",
    batch_and_duration=True,
    unembedding="cdp",
    embedding_eps_by_width=True,
)
"""arXiv 2512.22382, Table 1, without its eps for gains of a query-key norm (m_L^-1): the models here have no such norm.
Where eps is negligible, the unembedding trains as in ``completep``. Where it is not, eps would need a factor rho_d, as
in ``complete_mue_cdp``, but Table 1 has 1."""

DMFT_MOE = FanInRule(
    name="dmft_moe",
    summary="CompleteP with router and experts of the mean-field theory; for router sigmoid_mean at fixed density",
    experts="dmft",
    router="output",
)
"""After arXiv 2601.20205, from a SECONDARY source: router std d^-gamma (gamma = 1) and LR d^-1; expert up and gate std
d^-1/2, LR d^-1; expert down std (h/d)^-1 d^-1/2, LR h^-1. It does not mention shared experts, which scale like routed
ones here. It divides the routed sum by a; the router variant ``sigmoid_mean`` does that, so R = 1 here. It holds at a
fixed density a/N, which is not checked. Everything else is CompleteP, which that work extends. The router's eps is our
own."""
