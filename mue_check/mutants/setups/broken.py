"""Broken set-ups that the audit must see through, each a factory (``mue_check.mutants.setups.broken:A_missing``).

``right`` is the set-up without a mistake. All are one small mixture, ``REFERENCE`` and ``TARGET`` of ``workbench``.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from mue_check.mutants.setups import mistakes
from mue_check.mutants.setups.example import ExampleConfig
from mue_check.mutants.setups.workbench import BASE, Made, Workbench
from mue_check.rules import Role


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One mistake. The audit must report ``check`` on ``role`` (empty: on no parameter in particular).

    ``seen`` says where it was met. ``config`` changes the model that the mistake shows in.
    """

    name: str
    summary: str
    check: str
    role: str
    make: Callable[[Workbench], Made | None]
    seen: str = ""
    config: Callable[[ExampleConfig], ExampleConfig] = lambda c: c

    def __call__(self, *, seed: int = 0, config: ExampleConfig | None = None) -> Made:
        """The broken set-up: what a factory returns."""
        bench = Workbench.right(seed=seed, config=self.config(config or ExampleConfig()))
        return self.make(bench) or bench.finish()


def right(*, seed: int = 0, config: ExampleConfig | None = None) -> Made:
    """The set-up without a mistake."""
    return Workbench.right(seed=seed, config=config).finish()


MUTANTS = (
    Mutant(
        name="hidden_lr_unscaled",
        summary="hidden matrices keep the reference's learning rate",
        check="lr",
        role="attention_qkv",
        make=mistakes.hidden("lr", BASE.lr),
    ),
    Mutant(
        name="scheduler_overwrites_groups",
        summary="the scheduler gives every group the base learning rate",
        check="scheduler",
        role="",
        make=mistakes.overwritten,
        seen="gpt-neox",
    ),
    Mutant(
        name="one_rate_for_all",
        summary="groups say the right learning rates and the step takes the first group's",
        check="lr",
        role="attention_qkv",
        make=mistakes.one_rate,
    ),
    Mutant(
        name="weight_decay_not_compensated",
        summary="hidden decay unscaled while the learning rate falls",
        check="weight_decay",
        role="attention_qkv",
        make=mistakes.hidden("weight_decay", BASE.weight_decay / 2),
        seen="OLMo",
    ),
    Mutant(
        name="weight_decay_coupled",
        summary="Adam's L2 term in place of decoupled decay",
        check="weight_decay",
        role="attention_qkv",
        make=mistakes.coupled,
    ),
    Mutant(
        name="weight_decay_not_moved_with_duration",
        summary="decay as if the run were as long as the reference's",
        check="weight_decay",
        role="token_embedding",
        make=lambda b: b.set([Role.TOKEN_EMBEDDING], weight_decay=BASE.weight_decay),
    ),
    Mutant(
        name="eps_unscaled",
        summary="one eps for all",
        check="eps",
        role="attention_qkv",
        make=lambda b: b.set(Role, eps=BASE.eps),
    ),
    Mutant(
        name="betas_not_moved_with_duration",
        summary="betas as if the run were as long as the reference's",
        check="beta1",
        role="expert_gate",
        make=lambda b: b.set(Role, betas=(BASE.beta1, BASE.beta2)),
    ),
    Mutant(
        name="router_in_unscaled_group",
        summary="the router keeps the reference's learning rate",
        check="lr",
        role="router",
        make=lambda b: b.set([Role.ROUTER], lr=BASE.lr),
    ),
    Mutant(
        name="experts_by_own_ratio",
        summary="experts' learning rate by their own width over the reference's",
        check="lr",
        role="expert_gate",
        make=mistakes.own_ratio,
    ),
    Mutant(
        name="experts_missed",
        summary="the optimizer takes parameters named .weight, and stacked experts are not",
        check="group",
        role="expert_gate",
        make=mistakes.experts_missed,
        seen="unsloth PR#11014, peft #2527",
    ),
    Mutant(
        name="in_two_groups",
        summary="a router stands in two groups and is stepped twice",
        check="group",
        role="router",
        make=mistakes.in_two_groups,
    ),
    Mutant(
        name="optimizer_before_model",
        summary="the optimizer was built before the model was replaced",
        check="group",
        role="",
        make=mistakes.built_before,
        seen="deepspeedai/DeepSpeed PR#8354",
    ),
    Mutant(
        name="down_init_missing",
        summary="down-projections of experts drawn without sqrt(H_act / d)",
        check="init_std",
        role="expert_down",
        make=mistakes.down_init_missing,
    ),
    Mutant(
        name="A_missing",
        summary="neither a multiplier A nor values with A folded in",
        check="lr",
        role="expert_down",
        make=mistakes.unfolded(Role.EXPERT_DOWN, mistakes.expansion_multiplier),
    ),
    Mutant(
        name="A_in_init_alone",
        summary="A folded into the initial values and not into the optimizer's",
        check="eps",
        role="expert_down",
        make=mistakes.a_in_init_alone,
    ),
    Mutant(
        name="R_missing",
        summary="neither a multiplier R nor values with R folded in",
        check="init_std",
        role="expert_down",
        make=mistakes.unfolded(Role.EXPERT_DOWN, lambda b: b.multiplier(Role.ROUTER)),
    ),
    Mutant(
        name="logits_multiplier_missing",
        summary="neither 1/rho_d on the logits nor values with it folded in",
        check="lr",
        role="unembedding",
        make=mistakes.unfolded(Role.UNEMBEDDING, lambda b: b.multiplier(Role.UNEMBEDDING)),
    ),
    Mutant(
        name="residual_multiplier_missing",
        summary="neither 1/m_L on attention nor values with it folded in",
        check="lr",
        role="attention_out",
        make=mistakes.unfolded(Role.ATTENTION_OUT, lambda b: b.multiplier(Role.ATTENTION_OUT)),
    ),
    Mutant(
        name="multipliers_twice",
        summary="multipliers in the forward pass and folded in as well",
        check="lr",
        role="attention_out",
        make=mistakes.twice,
    ),
    Mutant(
        name="declared_and_not_there",
        summary="a multiplier that the model declares and its forward pass does not have",
        check="multiplier",
        role="attention_out",
        make=mistakes.declared_alone,
    ),
    Mutant(
        name="attention_by_root_of_head_width",
        summary="attention logits by 1/sqrt(d_head) while d_head grows",
        check="multiplier",
        role="attention_qkv",
        make=lambda b: None,
        seen="mixle #258",
        config=lambda c: replace(c, head_dim=32),
    ),
    Mutant(
        name="tied_embeddings",
        summary="the unembedding is the embedding, and nothing multiplies the logits",
        check="tied",
        role="token_embedding = unembedding",
        make=mistakes.tied,
        config=lambda c: replace(c, tied=True),
    ),
    Mutant(
        name="unembedding_forms_mixed",
        summary="readout init of one form (1/rho_d) with learning rate and multiplier of the other",
        check="lr",
        role="unembedding",
        make=lambda b: b.set([Role.UNEMBEDDING], lr=b.values["embed_tokens.weight"]["lr"]),
        seen="gpt-neox #1087",
    ),
    Mutant(
        name="expert_fan_in_flat",
        summary="fan-in of a stack of experts taken over all experts",
        check="init_std",
        role="expert_gate",
        make=lambda b: b.redraw(Role.EXPERT_GATE, b.model.config.num_experts**-0.5),
        seen="huggingface/transformers PR#42306",
    ),
    Mutant(
        name="one_expert_odd",
        summary="one expert drawn three times as wide as the others",
        check="expert_init",
        role="expert_down",
        make=mistakes.one_expert_odd,
    ),
    Mutant(
        name="router_at_zero",
        summary="routers start at 0",
        check="router_zero",
        role="router",
        make=lambda b: b.redraw(Role.ROUTER, 0.0),
    ),
    Mutant(
        name="experts_never_trained",
        summary="a forward-only kernel: no gradient reaches the experts",
        check="dead",
        role="expert_gate",
        make=mistakes.detached,
        seen="KellerJordan/Muon #65",
    ),
    Mutant(
        name="router_without_gradient",
        summary="routing weights without a gradient",
        check="dead",
        role="router",
        make=mistakes.routing_detached,
        seen="NVIDIA/Megatron-LM #894",
    ),
    Mutant(
        name="no_role",
        summary="a parameter that nobody declared",
        check="role",
        role="",
        make=mistakes.no_role,
    ),
)


def __getattr__(name: str) -> Callable[[], Made]:
    """A factory by the mutant's name, for the command line."""
    for mutant in MUTANTS:
        if mutant.name == name:
            return partial(mutant)
    raise AttributeError(name)
