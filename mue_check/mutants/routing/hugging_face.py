"""Routers and blocks of Hugging Face transformers as candidates: the library's own classes and init at tiny sizes.

``mue_check block mue_check.mutants.routing.hugging_face:mixtral_block`` checks the one that is installed. Each
router is the part of its block that the claim names. Nothing is downloaded, and transformers is imported only when a
factory is called.
"""

import importlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

from torch import nn

from mue_check.errors import ClaimError
from mue_check.routing.claim import ATTRIBUTE, RoutingSpec

F = TypeVar("F", bound=Callable[..., nn.Module])
_INIT = 0.2
"""The published 0.02 makes logits of about 1 at widths of 2048 to 7168; at those of the checks, 16 to 40, this does."""
_GROUPS, _GROUP_LIMIT = 4, 2
_LOSS = "transformers.models.mixtral.modeling_mixtral:load_balancing_loss_func"


def claims(**fields: Any) -> Callable[[F], F]:
    """A decorator: the factory carries this claim."""

    def carry(factory: F) -> F:
        setattr(factory, ATTRIBUTE, RoutingSpec(**fields))
        return factory

    return carry


def router_of(block: Callable[..., nn.Module], **changes: Any) -> Callable[[int, int, int], nn.Module]:
    """The factory (d_model, n_experts, top_k) of a block's router, with what the block claims of its routing.

    ``changes`` are fields of the claim.
    """
    claim: RoutingSpec = getattr(block, ATTRIBUTE)
    name = claim.router or ""

    @claims(**{**vars(replace(claim, router=None, shared=False)), **changes})
    def router(d_model: int, n_experts: int, top_k: int) -> nn.Module:
        return block(d_model, 1, n_experts, top_k).get_submodule(name)

    router.__name__ = router.__qualname__ = block.__name__.replace("block", "router")
    return router


def made(family: str, names: tuple[str, str, str], **config: Any) -> nn.Module:
    """The block of a family, as the library builds and initialises it inside a model.

    ``names`` are those of the config's class, the block's and the PreTrainedModel's; ``config`` are the config's
    fields. ClaimError without transformers.
    """
    block_class, owner = _owner(family, names, tuple(config.items()))
    block: nn.Module = block_class(owner.config)
    # the library leaves weights empty or zero until this
    return block.apply(owner._init_weights)


@cache  # a config takes longer than all the rest, and the checks build a candidate some hundred times
def _owner(family: str, names: tuple[str, str, str], config: tuple[tuple[str, Any], ...]) -> tuple[Any, Any]:
    """The block's class, and a PreTrainedModel of the family that has a config and no modules."""
    try:
        library: Any = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    except ImportError as error:
        raise ClaimError(f"{family} needs transformers 5: pip install 'mue_check[hf]' ({error})") from None
    config_class, block_class, owner_class = (getattr(library, name) for name in names)
    # "eager" is the modeling file's own code; the grouped product that a model takes by default knows no float64
    fields = {"initializer_range": _INIT, "experts_implementation": "eager", **dict(config)}
    return block_class, owner_class(config_class(**fields))


_MIXTRAL = ("MixtralConfig", "MixtralSparseMoeBlock", "MixtralPreTrainedModel")


def _mixtral(d_model: int, d_expert: int, n_experts: int, top_k: int, **more: Any) -> nn.Module:
    sizes = {"hidden_size": d_model, "intermediate_size": d_expert, "num_experts_per_tok": top_k}
    return made("mixtral", _MIXTRAL, num_local_experts=n_experts, **sizes, **more)


@claims(gate="softmax", order="score_first", fp32_gate=False, router="gate")
def mixtral_block(d_model: int, d_expert: int, n_experts: int, top_k: int) -> nn.Module:
    """Mixtral: softmax over all, the best a, normalized over them."""
    return _mixtral(d_model, d_expert, n_experts, top_k)


@claims(gate="softmax", order="score_first", fp32_gate=False, router="gate")
def mixtral_grouped_block(d_model: int, d_expert: int, n_experts: int, top_k: int) -> nn.Module:
    """The same with the grouped product that a model takes by default; it needs widths that are multiples of 8."""
    return _mixtral(d_model, d_expert, n_experts, top_k, experts_implementation="grouped_mm")


@claims(gate="softmax", order="score_first", fp32_gate=False, router="gate")
def mixtral_jitter_block(d_model: int, d_expert: int, n_experts: int, top_k: int) -> nn.Module:
    """The same with router_jitter_noise, which is written into the experts' input (transformers #33969)."""
    return _mixtral(d_model, d_expert, n_experts, top_k, router_jitter_noise=0.1)


def _qwen3(d_model: int, d_expert: int, n_experts: int, top_k: int, *, norm: bool) -> nn.Module:
    names = ("Qwen3MoeConfig", "Qwen3MoeSparseMoeBlock", "Qwen3MoePreTrainedModel")
    sizes = {"hidden_size": d_model, "moe_intermediate_size": d_expert, "num_experts": n_experts}
    return made("qwen3_moe", names, **sizes, num_experts_per_tok=top_k, norm_topk_prob=norm)


@claims(gate="softmax", order="score_first", fp32_gate=False, router="gate")
def qwen3_block(d_model: int, d_expert: int, n_experts: int, top_k: int) -> nn.Module:
    """Qwen3-MoE as it is published: norm_topk_prob=True."""
    return _qwen3(d_model, d_expert, n_experts, top_k, norm=True)


@claims(gate="softmax", order="score_first", weight_sum="free", fp32_gate=False, router="gate")
def qwen3_unnormalized_block(d_model: int, d_expert: int, n_experts: int, top_k: int) -> nn.Module:
    """Qwen3-MoE by the config's default, norm_topk_prob=False: probabilities as they are."""
    return _qwen3(d_model, d_expert, n_experts, top_k, norm=False)


@claims(gate="softmax", order="score_first", weight_sum="free", fp32_gate=False, router="gate", shared=True)
def qwen2_block(d_model: int, d_expert: int, n_experts: int, top_k: int) -> nn.Module:
    """Qwen2-MoE: probabilities as they are, beside a shared expert with a gate of its own."""
    names = ("Qwen2MoeConfig", "Qwen2MoeSparseMoeBlock", "Qwen2MoePreTrainedModel")
    sizes = {"hidden_size": d_model, "moe_intermediate_size": d_expert, "num_experts": n_experts}
    return made("qwen2_moe", names, **sizes, num_experts_per_tok=top_k, shared_expert_intermediate_size=2 * d_expert)


def _olmoe(d_model: int, d_expert: int, n_experts: int, top_k: int, *, norm: bool) -> nn.Module:
    names = ("OlmoeConfig", "OlmoeSparseMoeBlock", "OlmoePreTrainedModel")
    sizes = {"hidden_size": d_model, "intermediate_size": d_expert, "num_experts": n_experts}
    return made("olmoe", names, **sizes, num_experts_per_tok=top_k, norm_topk_prob=norm)


@claims(gate="softmax", order="score_first", weight_sum="free", fp32_gate=False, router="gate")
def olmoe_block(d_model: int, d_expert: int, n_experts: int, top_k: int) -> nn.Module:
    """OLMoE as it is published: norm_topk_prob=False, on purpose."""
    return _olmoe(d_model, d_expert, n_experts, top_k, norm=False)


@claims(gate="softmax", order="score_first", fp32_gate=False, router="gate")
def olmoe_normalized_block(d_model: int, d_expert: int, n_experts: int, top_k: int) -> nn.Module:
    """OLMoE with norm_topk_prob=True."""
    return _olmoe(d_model, d_expert, n_experts, top_k, norm=True)


@claims(
    gate="sigmoid",
    order="score_first",
    weight_sum=2.5,
    groups=_GROUPS,
    group_limit=_GROUP_LIMIT,
    selection_bias="e_score_correction_bias",
    fp32_gate=True,
    router="gate",
    shared=True,
)
def deepseek_v3_block(d_model: int, d_expert: int, n_experts: int, top_k: int) -> nn.Module:
    """DeepSeek-V3: sigmoid, bias for the choice alone, groups by their two best, the weights scaled by 2.5."""
    names = ("DeepseekV3Config", "DeepseekV3MoE", "DeepseekV3PreTrainedModel")
    sizes = {"hidden_size": d_model, "moe_intermediate_size": d_expert, "n_routed_experts": n_experts}
    return made("deepseek_v3", names, **sizes, num_experts_per_tok=top_k, n_group=_GROUPS, topk_group=_GROUP_LIMIT)


@claims(gate="softmax", order="select_first", fp32_gate=False, router="router")
def gpt_oss_block(d_model: int, d_expert: int, n_experts: int, top_k: int) -> nn.Module:
    """gpt-oss: the best a of biased logits, softmax over those; experts transposed, interleaved and with biases."""
    names = ("GptOssConfig", "GptOssMLP", "GptOssPreTrainedModel")
    sizes = {"hidden_size": d_model, "intermediate_size": d_expert, "num_local_experts": n_experts}
    return made("gpt_oss", names, **sizes, num_experts_per_tok=top_k)


@claims(gate="softmax", order="select_first", fp32_gate=False, router="router")
def granite_block(d_model: int, d_expert: int, n_experts: int, top_k: int) -> nn.Module:
    """Granite-MoE: the best a logits, softmax over those."""
    names = ("GraniteMoeConfig", "GraniteMoeMoE", "GraniteMoePreTrainedModel")
    sizes = {"hidden_size": d_model, "intermediate_size": d_expert, "num_local_experts": n_experts}
    return made("granitemoe", names, **sizes, num_experts_per_tok=top_k)


@claims(gate="sigmoid", weight_sum="free", fp32_gate=False, router="router", apply_on="input", shared=True)
def llama4_block(d_model: int, d_expert: int, n_experts: int, top_k: int) -> nn.Module:
    """Llama 4: sigmoid of the best logits, which multiplies the experts' input."""
    names = ("Llama4TextConfig", "Llama4TextMoe", "Llama4PreTrainedModel")
    sizes = {"hidden_size": d_model, "intermediate_size": d_expert, "num_local_experts": n_experts}
    return made("llama4", names, **sizes, num_experts_per_tok=top_k)


mixtral_router = router_of(mixtral_block)
mixtral_loss_router = router_of(mixtral_block, auxiliary_loss=_LOSS)
"""With the library's load-balancing loss, which pools the layers before the product (transformers #31464)."""
qwen3_router = router_of(qwen3_block)
qwen3_unnormalized_router = router_of(qwen3_unnormalized_block)
qwen2_router = router_of(qwen2_block)
olmoe_router = router_of(olmoe_block)
olmoe_normalized_router = router_of(olmoe_normalized_block)
deepseek_v3_router = router_of(deepseek_v3_block)
gpt_oss_router = router_of(gpt_oss_block)
granite_router = router_of(granite_block)
llama4_router = router_of(llama4_block)
