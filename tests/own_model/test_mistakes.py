"""Each mistake in a user's own model is named with its module."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mue_check import check_model
from mue_check.own_model.what_next import what_next
from tests.own_model.example import EXPERTS, LAYERS, WIDTHS, candidate, my_model, suspects, with_groups


def with_init(change: Callable[[nn.Module, float], None]) -> SimpleNamespace:
    """The example after a change of the model, given its width over the base."""

    def model(**size: int) -> nn.Module:
        made = my_model.model(**size)
        with torch.no_grad():
            change(made, made.width / my_model.BASE_WIDTH)
        return made

    return candidate(model=model)


def is_hidden(name: str, p: Tensor) -> bool:
    return name.startswith("layers.") and p.ndim == 2


def right_rate(name: str, p: Tensor, ratio: float) -> float:
    return 1 / ratio if is_hidden(name, p) else 1.0


def hidden_unscaled(name: str, p: Tensor, ratio: float) -> float:
    return 1.0


def router_unscaled(name: str, p: Tensor, ratio: float) -> float:
    return 1.0 if ".gate." in name else right_rate(name, p, ratio)


def embedding_with_the_hidden(name: str, p: Tensor, ratio: float) -> float:
    return 1 / ratio if name.startswith("embed") else right_rate(name, p, ratio)


def scaled_twice(name: str, p: Tensor, ratio: float) -> float:
    return ratio**-2 if "experts" in name else right_rate(name, p, ratio)


def down_init_unscaled(model: nn.Module, ratio: float) -> None:
    for layer in model.layers:
        for expert in layer.mlp.experts:
            expert.down_proj.weight.mul_(ratio**0.5)


def readout_forms_mixed(model: nn.Module, ratio: float) -> None:
    model.lm_head.weight.div_(ratio)


def readout_multiplier_missing(model: nn.Module, ratio: float) -> None:
    model.lm_head.register_forward_hook(lambda module, x, y: y * ratio)  # undoes it


def one_layer_wrong(model: nn.Module, ratio: float) -> None:
    model.layers[1].self_attn.o_proj.weight.mul_(ratio**0.5)


def scheduler_overwrites_groups() -> SimpleNamespace:
    class Overwriting:
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.groups = optimizer.param_groups
            self.lr = self.groups[1]["lr"]

        def step(self) -> None:
            for group in self.groups:
                group["lr"] = self.lr

    return candidate(scheduler=Overwriting)


def all_experts_in_A(model: nn.Module, ratio: float) -> None:
    for layer in model.layers:
        layer.mlp.scale *= layer.mlp.top_k / len(layer.mlp.experts)


def weights_not_normalized(model: nn.Module, ratio: float) -> None:
    """The softmax over all experts, without dividing by the sum of the chosen."""

    def forward(self: Any, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        weights, chosen = self.gate(tokens).softmax(-1).topk(self.top_k)
        out = torch.zeros_like(tokens)
        for index, expert in enumerate(self.experts):
            token, place = torch.where(chosen == index)
            out = out.index_add(0, token, expert(tokens[token]) * weights[token, place, None])
        return self.scale * out.view_as(x)

    for layer in model.layers:
        layer.mlp.forward = forward.__get__(layer.mlp)


def multiplier_of_depth_missing(model: nn.Module, ratio: float) -> None:
    for layer in model.layers:
        layer.multiplier = 1.0


MISTAKES = [
    (with_groups(hidden_unscaled), "width", "layers.*.mlp.experts.*.up_proj.weight", "hidden rate"),
    (with_groups(router_unscaled), "width", "layers.*.mlp.gate.weight", "router rate"),
    (with_groups(embedding_with_the_hidden), "width", "embed_tokens.weight", "embedding rate"),
    (with_groups(scaled_twice), "width", "layers.*.mlp.experts.*.gate_proj.weight", "hidden rate"),
    (with_init(down_init_unscaled), "width", "layers.*.mlp.experts.*.down_proj.weight", "hidden init"),
    (with_init(readout_forms_mixed), "width", "lm_head.weight", "readout"),
    (with_init(readout_multiplier_missing), "width", "lm_head", "readout"),
    (with_init(one_layer_wrong), "width", "layers.*.self_attn.o_proj.weight", "hidden init"),
    (scheduler_overwrites_groups(), "width", "layers.*.mlp.gate.weight", "schedule"),
    (with_init(all_experts_in_A), "experts", "layers.*.mlp", "expert multipliers"),
    (with_init(weights_not_normalized), "experts", "layers.*.mlp", "expert multipliers"),
    (with_init(multiplier_of_depth_missing), "layers", "layers.*", "residual multiplier"),
]


@pytest.mark.parametrize(
    ("wrong", "axis", "named", "cause"),
    MISTAKES,
    ids=[
        *("unscaled", "router", "embedding", "twice", "down", "mixed"),
        *("readout", "one_layer", "scheduler", "A", "R", "depth"),
    ],
)
def test_each_mistake_is_named_with_its_module_and_cause(
    wrong: SimpleNamespace, axis: str, named: str, cause: str
) -> None:
    sizes = {"width": WIDTHS, "experts": EXPERTS, "layers": LAYERS}[axis]
    report = check_model(wrong, axis=axis, sizes=sizes, base=0, seeds=(4,))
    assert named in suspects(report), suspects(report)
    causes = [suspect.cause.name for suspect in what_next(axis, report.growth, report.rows)]
    assert cause in causes[:2], causes
    assert f"likely cause 1: {causes[0]}" in report.text()


def test_a_mistake_in_one_group_names_no_other() -> None:
    report = check_model(with_groups(router_unscaled), sizes=WIDTHS, base=0, seeds=(4,))
    assert suspects(report) == ["layers.*.mlp.gate.weight"]
