"""The documented forms of libraries that are not installed here, and modules with their names.

Megatron-LM: ParamKey and _get_param_groups in megatron/core/optimizer. torchtitan: components/optim/optimizer.py.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import nn

MEGATRON_FLAGS = {
    "--optimizer",
    "--lr",
    "--weight-decay",
    "--adam-beta1",
    "--adam-beta2",
    "--adam-eps",
    "--train-iters",
}


@dataclass(frozen=True)
class ParamWithNamePredicate:
    name: str
    fn: Callable[[nn.Parameter, str], bool] = field(compare=False, hash=False)


@dataclass(frozen=True, slots=True)
class ParamKey:
    with_name_predicate: ParamWithNamePredicate


def megatron_optimizer(model: nn.Module, arguments: list[str], overrides: Mapping[ParamKey, Any]) -> torch.optim.AdamW:
    """What Megatron trains with: the overrides that match, on top of the arguments, at the peak of the schedule."""
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    groups = []
    for name, p in model.named_parameters():
        found = [o for key, o in overrides.items() if key.with_name_predicate.fn(p, name)]
        assert len(found) == 1, f"{name}: {len(found)} overrides, which Megatron would combine"
        own = {"max_lr": float(given["--lr"]), "wd_mult": 1.0, "eps": float(given["--adam-eps"]), **found[0]}
        decay = float(given["--weight-decay"]) * own["wd_mult"]
        groups.append({"params": [p], "lr": own["max_lr"], "eps": own["eps"], "weight_decay": decay})
    return torch.optim.AdamW(groups, betas=(float(given["--adam-beta1"]), float(given["--adam-beta2"])))


@dataclass(kw_only=True)
class Titan:
    """AdamW.Config."""

    pattern: str
    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float


@dataclass(kw_only=True)
class TitanContainer:
    """OptimizersContainer.Config."""

    optimizers: list[Titan]

    def build(self, model: nn.Module) -> list[torch.optim.AdamW]:
        claimed: set[str] = set()
        out = []
        for config in self.optimizers:
            named = [n for n, _ in model.named_parameters() if n not in claimed and re.search(config.pattern, n)]
            if not named:
                raise ValueError(f"Optimizer pattern {config.pattern!r} matched no parameters")
            claimed.update(named)
            values = {"lr": config.lr, "betas": config.betas, "eps": config.eps, "weight_decay": config.weight_decay}
            out.append(torch.optim.AdamW([model.get_parameter(n) for n in named], **values))
        assert claimed == {n for n, _ in model.named_parameters()}
        return out


@contextmanager
def installed(**modules: Mapping[str, object]) -> Iterator[None]:
    """Modules of these names (with _ for .) for a while."""
    made = {}
    for path, members in modules.items():
        parts = path.split("__")
        for depth in range(1, len(parts) + 1):
            made.setdefault(".".join(parts[:depth]), ModuleType(".".join(parts[:depth])))
        vars(made[".".join(parts)]).update(members)
    before = {name: sys.modules.get(name) for name in made}
    sys.modules.update(made)
    try:
        yield
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


def megatron() -> Any:
    return installed(
        megatron__core__optimizer__optimizer_config={
            "ParamKey": ParamKey,
            "ParamWithNamePredicate": ParamWithNamePredicate,
        }
    )


def torchtitan() -> Any:
    config, container = type("AdamW", (), {"Config": Titan}), type("Container", (), {"Config": TitanContainer})
    return installed(torchtitan__components__optim={"AdamW": config, "OptimizersContainer": container})


def tree(leaves: Mapping[str, nn.Module | nn.Parameter]) -> nn.Module:
    """A model of these modules and parameters by dotted name, without a forward pass."""
    root = nn.Module()
    for path, leaf in leaves.items():
        *outer, last = path.split(".")
        at = root
        for part in outer:
            if part not in at._modules:
                at.add_module(part, nn.Module())
            at = at.get_submodule(part)
        at.register_parameter(last, leaf) if isinstance(leaf, nn.Parameter) else at.add_module(last, leaf)
    return root


def linear(inputs: int, outputs: int, bias: bool = False) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=bias)


def megatron_model(d: int = 64, h: int = 48, experts: int = 4) -> nn.Module:
    """The names of a Megatron-core mixture with grouped experts and norms fused into the linear layers after them."""
    block: dict[str, nn.Module | nn.Parameter] = {
        "self_attention.linear_proj": linear(d, d),
        "self_attention.linear_qkv": linear(d, 3 * d),
        "self_attention.linear_qkv.layer_norm_weight": nn.Parameter(torch.ones(d)),
        "pre_mlp_layernorm": nn.RMSNorm(d),
        "mlp.router.weight": nn.Parameter(torch.empty(experts, d)),
        "mlp.shared_experts.linear_fc1": linear(d, 2 * h),
        "mlp.shared_experts.linear_fc2": linear(h, d),
    }
    for layer, inputs, outputs in (("linear_fc1", d, 2 * h), ("linear_fc2", h, d)):
        grouped = type("TEGroupedLinear", (nn.Module,), {})()
        for i in range(experts):
            grouped.register_parameter(f"weight{i}", nn.Parameter(torch.empty(outputs, inputs)))
        block[f"mlp.experts.{layer}"] = grouped
    ends = {
        "embedding.word_embeddings": nn.Embedding(80, d),
        "decoder.final_layernorm": nn.RMSNorm(d),
        "output_layer": linear(d, 80),
    }
    return tree({**ends, **{f"decoder.layers.0.{name}": leaf for name, leaf in block.items()}})


def titan_model(d: int = 64, h: int = 48, experts: int = 4) -> nn.Module:
    """The names of a torchtitan mixture."""
    block: dict[str, nn.Module | nn.Parameter] = {
        **{f"attention.{name}": linear(d, d) for name in ("wq", "wk", "wv", "wo")},
        "attention_norm": nn.RMSNorm(d),
        "ffn_norm": nn.RMSNorm(d),
        "moe.router.gate": linear(d, experts),
        "moe.routed_experts.inner_experts.w1_EFD": nn.Parameter(torch.empty(experts, h, d)),
        "moe.routed_experts.inner_experts.w2_EDF": nn.Parameter(torch.empty(experts, d, h)),
        "moe.routed_experts.inner_experts.w3_EFD": nn.Parameter(torch.empty(experts, h, d)),
        "moe.shared_experts.w1": linear(d, h),
        "moe.shared_experts.w2": linear(h, d),
        "moe.shared_experts.w3": linear(d, h),
    }
    ends = {"tok_embeddings": nn.Embedding(80, d), "norm": nn.RMSNorm(d), "lm_head": linear(d, 80)}
    return tree({**ends, **{f"layers.0.{name}": leaf for name, leaf in block.items()}})
