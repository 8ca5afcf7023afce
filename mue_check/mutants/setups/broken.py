"""Broken set-ups that the audit must see through, each a factory (``mue_check.mutants.setups.broken:A_missing``).

Each takes the parts of a right set-up of one small mixture and gets one thing wrong; ``right`` is the set-up without
a mistake.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mue_check.audit.audit import audit_model
from mue_check.audit.groups import param_groups
from mue_check.judge.verdict import Verdict
from mue_check.mutants.mutant import CheckOutcome, Mutant, summary_of
from mue_check.mutants.setups.example import ExampleConfig, ExampleMixture
from mue_check.mutants.setups.workbench import BASE, REFERENCE, TARGET, WARMUP, SetUpParts, Workbench, warm
from mue_check.rules import Role
from mue_check.rules.roles import HIDDEN

Break = Callable[[Workbench], SetUpParts | None]


def examine_setup(mutant: Mutant) -> tuple[CheckOutcome, ...]:
    """The audit of a broken set-up at one seed: an outcome for each offence."""
    model, optimizer, scheduler, loss = mutant()
    report = audit_model(model, optimizer, scheduler, reference=REFERENCE, target=TARGET, base=BASE, loss=loss)
    return tuple(
        CheckOutcome(check=o.check, verdict=Verdict.FAIL, measured=str(o), caught=True, named=o.role == mutant.finding)
        for o in report.offences
    )


def right(*, seed: int = 0, config: ExampleConfig | None = None) -> SetUpParts:
    """The set-up without a mistake."""
    return Workbench.right(seed=seed, config=config).finish()


def _mutant(check: str, role: str = "", *, seen: str = "", **changes: Any) -> Callable[[Break], Mutant]:
    """A decorator for a mistake that the audit must report as ``check`` on ``role`` (empty: on no parameter).

    ``changes`` are those of the configuration in which the mistake shows.
    """

    def mutant(mistake: Break) -> Mutant:
        def build(*, seed: int = 0, config: ExampleConfig | None = None) -> SetUpParts:
            bench = Workbench.right(seed=seed, config=replace(config or ExampleConfig(), **changes))
            return mistake(bench) or bench.finish()

        name, summary = mistake.__name__, summary_of(mistake)
        return Mutant(name=name, summary=summary, kind="setup", build=build, caught_by=check, finding=role, seen=seen)

    return mutant


@_mutant("lr", "attention_qkv")
def hidden_lr_unscaled(b: Workbench) -> None:
    """Hidden matrices keep the reference's learning rate."""
    b.set(HIDDEN, lr=BASE.lr)


class _Overwriting(torch.optim.lr_scheduler.LambdaLR):
    """Gives every group the base rate, and ignores the rate with which the group began."""

    def get_lr(self) -> list[float | Tensor]:
        return [BASE.lr * warm(self.last_epoch)] * len(self.base_lrs)


@_mutant("scheduler", seen="gpt-neox")
def scheduler_overwrites_groups(b: Workbench) -> None:
    """The scheduler gives every group the base learning rate."""
    b.schedule = lambda optimizer: _Overwriting(optimizer, warm)


class _Rewriting(torch.optim.lr_scheduler.LambdaLR):
    """Writes one weight decay into every group once the warm-up is over."""

    def step(self, epoch: int | None = None) -> None:
        super().step(epoch)
        for group in self.optimizer.param_groups if self.last_epoch >= WARMUP else ():
            group["weight_decay"] = BASE.weight_decay


@_mutant("scheduler", seen="NVIDIA/Megatron-LM PR#7468")
def decay_rewritten_after_warmup(b: Workbench) -> None:
    """The scheduler writes the reference's decay into every group when the warm-up ends."""
    b.schedule = lambda optimizer: _Rewriting(optimizer, warm)


class _ClippingByGroup(torch.optim.AdamW):
    """Clips the gradients of each group to a norm of 1."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
        super().step(closure)


@_mutant("clipping", seen="marin-community/marin PR#6160")
def clipped_by_group(b: Workbench) -> SetUpParts:
    """Gradients are clipped group by group, each to its own norm."""
    groups = param_groups(b.model, b.prescription, BASE)
    optimizer = _ClippingByGroup(groups)
    return b.model, optimizer, b.schedule(optimizer), b.loss


@_mutant("rounding", "norm_gain")
def gains_in_bfloat16(b: Workbench) -> None:
    """The weights are bfloat16 without float32 copies, and a gain of 1 is too large for its updates."""
    b.model.to(torch.bfloat16)


@_mutant("lr", "attention_out")
def muon_scaled_twice(b: Workbench) -> SetUpParts:
    """Muon, which scales its step with the width itself, gets AdamW's learning rate for this width."""
    names = b.of(Role.ATTENTION_OUT)
    muon = torch.optim.Muon([b.model.get_parameter(name) for name in names], lr=b.values[names[0]]["lr"])
    adamw = b.optimizer([group for name, group in b.values.items() if name not in names])
    return b.model, [muon, adamw], [b.schedule(muon), b.schedule(adamw)], b.loss


@_mutant("role", "unembedding")
def role_of_a_catch_all(b: Workbench) -> None:
    """A pattern that is too wide declares the embedding too."""
    b.model.mue_check_roles = {"*em*": "unembedding"}  # type: ignore[assignment]


class _OneRate(torch.optim.AdamW):
    """Steps every group at the first one's learning rate."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        own = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["lr"] = own[0]
        super().step(closure)
        for group, lr in zip(self.param_groups, own, strict=True):
            group["lr"] = lr


@_mutant("lr", "attention_qkv")
def one_rate_for_all(b: Workbench) -> None:
    """The groups show the right learning rates, and the step uses the first group's."""
    b.optimizer = _OneRate


@_mutant("weight_decay", "attention_qkv", seen="OLMo")
def weight_decay_not_compensated(b: Workbench) -> None:
    """The decay of hidden matrices is unscaled while the learning rate falls."""
    b.set(HIDDEN, weight_decay=BASE.weight_decay / 2)


@_mutant("weight_decay", "attention_qkv")
def weight_decay_coupled(b: Workbench) -> None:
    """Adam's L2 term instead of decoupled decay."""
    b.optimizer = torch.optim.Adam


@_mutant("weight_decay", "token_embedding")
def weight_decay_not_moved_with_duration(b: Workbench) -> None:
    """Decay as if the run were as long as the reference's."""
    b.set([Role.TOKEN_EMBEDDING], weight_decay=BASE.weight_decay)


@_mutant("eps", "attention_qkv")
def eps_unscaled(b: Workbench) -> None:
    """All parameters have one eps."""
    b.set(Role, eps=BASE.eps)


@_mutant("beta1", "expert_gate")
def betas_not_moved_with_duration(b: Workbench) -> None:
    """Betas as if the run were as long as the reference's."""
    b.set(Role, betas=(BASE.beta1, BASE.beta2))


@_mutant("lr", "router")
def router_in_unscaled_group(b: Workbench) -> None:
    """The router keeps the reference's learning rate."""
    b.set([Role.ROUTER], lr=BASE.lr)


@_mutant("lr", "expert_gate")
def experts_by_own_ratio(b: Workbench) -> None:
    """The experts' learning rate follows their own width over the reference's, h / d*, instead of rho_d."""
    ratio = b.model.config.moe_intermediate_size / b.prescription.target.model.width
    for name in b.of(Role.EXPERT_GATE, Role.EXPERT_DOWN):
        b.values[name]["lr"] /= ratio


@_mutant("group", "expert_gate", seen="unsloth PR#11014, peft #2527")
def experts_missed(b: Workbench) -> None:
    """The optimizer takes parameters named .weight, and stacked experts have other names."""
    b.values = {name: group for name, group in b.values.items() if name.endswith(".weight")}


@_mutant("group", "router")
def in_two_groups(b: Workbench) -> SetUpParts:
    """A router is in two groups and is stepped twice."""
    model, optimizer, scheduler, loss = b.finish()
    assert isinstance(optimizer, torch.optim.Optimizer)
    # torch refuses this when groups are added, so it comes about by editing them
    router = model.get_parameter(b.of(Role.ROUTER)[0])
    optimizer.param_groups[0]["params"].append(router)
    return model, optimizer, scheduler, loss


@_mutant("group", seen="deepspeedai/DeepSpeed PR#8354")
def optimizer_before_model(b: Workbench) -> SetUpParts:
    """The optimizer was built before the model was replaced, and holds parameters of a model that is gone."""
    _, optimizer, scheduler, _ = b.finish()
    b.restart(ExampleMixture(b.model.config))
    return b.model, optimizer, scheduler, b.loss


@_mutant("init_std", "expert_down")
def down_init_missing(b: Workbench) -> None:
    """The experts' down-projections are drawn without sqrt(H_act / d)."""
    b.redraw(Role.EXPERT_DOWN, b.prescription.target.model.expansion**-0.5)


def _A(b: Workbench) -> float:
    """A = d / H_act."""
    return 1 / b.prescription.target.model.expansion


@_mutant("lr", "expert_down")
def A_missing(b: Workbench) -> None:
    """Neither a multiplier A nor values with A folded in."""
    b.unfold(Role.EXPERT_DOWN, _A(b))


@_mutant("eps", "expert_down")
def A_in_init_alone(b: Workbench) -> None:
    """A is folded into the initial values and not into the optimizer's."""
    b.unfold(Role.EXPERT_DOWN, _A(b))
    b.redraw(Role.EXPERT_DOWN, _A(b))


@_mutant("init_std", "expert_down")
def R_missing(b: Workbench) -> None:
    """Neither a multiplier R nor values with R folded in."""
    b.unfold(Role.EXPERT_DOWN, b.multiplier(Role.ROUTER))


@_mutant("lr", "unembedding")
def logits_multiplier_missing(b: Workbench) -> None:
    """Neither 1/rho_d on the logits nor values with it folded in."""
    b.unfold(Role.UNEMBEDDING, b.multiplier(Role.UNEMBEDDING))


@_mutant("lr", "attention_out")
def residual_multiplier_missing(b: Workbench) -> None:
    """Neither 1/m_L on attention nor values with it folded in."""
    b.unfold(Role.ATTENTION_OUT, b.multiplier(Role.ATTENTION_OUT))


@_mutant("lr", "attention_out")
def multipliers_twice(b: Workbench) -> None:
    """Multipliers are in the forward pass and folded in as well."""
    b.model.multipliers.update({role: b.multiplier(Role(role)) for role in ("attention_out", "shared_down")})


@_mutant("multiplier", "attention_out")
def declared_and_not_there(b: Workbench) -> None:
    """The model declares a multiplier that its forward pass does not have."""
    b.unfold(Role.ATTENTION_OUT, b.multiplier(Role.ATTENTION_OUT))
    b.model.mue_check_multipliers = {"attention_out": b.multiplier(Role.ATTENTION_OUT)}  # type: ignore[assignment]


@_mutant("multiplier", "attention_qkv", seen="mixle #258", head_dim=32)
def attention_by_root_of_head_width(b: Workbench) -> None:
    """Attention logits are scaled by 1/sqrt(d_head) while d_head grows."""


@_mutant("tied", "token_embedding = unembedding", tied=True)
def tied_embeddings(b: Workbench) -> SetUpParts:
    """The unembedding is the embedding, and nothing multiplies the logits."""
    return b.model, torch.optim.AdamW(b.model.parameters(), lr=BASE.lr), None, b.loss


@_mutant("lr", "unembedding", seen="gpt-neox #1087")
def unembedding_forms_mixed(b: Workbench) -> None:
    """The readout has the init of one form (1/rho_d) and the learning rate and multiplier of the other."""
    b.set([Role.UNEMBEDDING], lr=b.values["embed_tokens.weight"]["lr"])


@_mutant("init_std", "expert_gate", seen="huggingface/transformers PR#42306")
def expert_fan_in_flat(b: Workbench) -> None:
    """The fan-in of a stack of experts is taken over all experts."""
    b.redraw(Role.EXPERT_GATE, b.model.config.num_experts**-0.5)


@_mutant("expert_init", "expert_down")
@torch.no_grad()
def one_expert_odd(b: Workbench) -> None:
    """One expert is drawn three times as wide as the others."""
    b.model.get_parameter(b.of(Role.EXPERT_DOWN)[0])[3].mul_(3)


@_mutant("router_zero", "router")
def router_at_zero(b: Workbench) -> None:
    """Routers start at 0."""
    b.redraw(Role.ROUTER, 0.0)


def _detach(b: Workbench, part: str) -> None:
    for block in b.model.layers:
        module: Any = block.get_submodule(f"mlp.{part}")
        module.forward = torch.no_grad()(module.forward)


@_mutant("dead", "expert_gate", seen="KellerJordan/Muon #65")
def experts_never_trained(b: Workbench) -> None:
    """A forward-only kernel: no gradient reaches the experts."""
    _detach(b, "experts")


@_mutant("dead", "router", seen="NVIDIA/Megatron-LM #894")
def router_without_gradient(b: Workbench) -> None:
    """The routing weights have no gradient."""
    _detach(b, "gate")


@_mutant("role")
def no_role(b: Workbench) -> None:
    """The model has a parameter that nobody declared."""
    extra = torch.nn.Parameter(torch.ones(3))
    b.model.register_parameter("mix", extra)
    b.values["mix"] = {"params": [extra]}


MUTANTS = tuple(value for value in tuple(globals().values()) if isinstance(value, Mutant))
