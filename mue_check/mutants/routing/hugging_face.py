"""Routers and blocks of Hugging Face transformers as candidates: the library's own classes and init at tiny sizes.

``mue_check block mue_check.mutants.routing.hugging_face:mixtral_block`` checks the installed one. Each router is the
part of its block that the claim names. Nothing is downloaded, and transformers is imported only when a factory is
called.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from torch import nn

from mue_check.errors import ClaimError
from mue_check.routing.claim import ATTRIBUTE, RoutingSpec

Factory = Callable[..., nn.Module]
_INIT = 0.2
"""The published 0.02 makes logits of about 1 at widths of 2048 to 7168; at those of the checks, 16 to 40, this does."""


@dataclass(frozen=True)
class Family:
    """A family of models: its module, its classes, and how its config names sizes.

    ``shared`` is the field of the shared expert's width, which is twice a routed expert's here.
    """

    module: str
    config: str
    block: str
    owner: str
    expert_width: str = "moe_intermediate_size"
    experts: str = "num_experts"
    shared: str = ""

    def factory(self, claim: RoutingSpec, **config: Any) -> Factory:
        """The factory of the family's block, with its claim; ``config`` are other fields of the config."""

        def block(d_model: int, d_expert: int, n_experts: int, top_k: int) -> nn.Module:
            sizes = {"hidden_size": d_model, self.expert_width: d_expert, self.experts: n_experts}
            shared = {self.shared: 2 * d_expert} if self.shared else {}
            fields = {**sizes, **shared, "num_experts_per_tok": top_k, **config}
            block_class, owner = _owner(self, tuple(fields.items()))
            made: nn.Module = block_class(owner.config)
            # the library leaves weights empty or zero until this
            return made.apply(owner._init_weights)

        setattr(block, ATTRIBUTE, claim)
        return block


@cache  # a config takes longer than all the rest, and the checks build a candidate some hundred times
def _owner(family: Family, config: tuple[tuple[str, Any], ...]) -> tuple[Any, Any]:
    """The block's class, and a PreTrainedModel that has a config and no modules; ClaimError without transformers."""
    try:
        library: Any = importlib.import_module(f"transformers.models.{family.module}.modeling_{family.module}")
    except ImportError as error:
        raise ClaimError(f"{family.module} needs transformers 5: pip install 'mue_check[hf]' ({error})") from None
    # "eager" is the modeling file's own code; the grouped product that a model takes by default has no float64
    fields = {"initializer_range": _INIT, "experts_implementation": "eager", **dict(config)}
    owner: Any = getattr(library, family.owner)(getattr(library, family.config)(**fields))
    return getattr(library, family.block), owner


def router_of(block: Factory, **changes: Any) -> Factory:
    """The factory (d_model, n_experts, top_k) of a block's router, with the block's claim about its routing.

    ``changes`` are fields of the claim.
    """
    claim: RoutingSpec = getattr(block, ATTRIBUTE)
    name = claim.router or ""

    def router(d_model: int, n_experts: int, top_k: int) -> nn.Module:
        return block(d_model, 1, n_experts, top_k).get_submodule(name)

    setattr(router, ATTRIBUTE, replace(claim, router=None, shared=False, **changes))
    return router


_MIXTRAL = Family(
    "mixtral",
    "MixtralConfig",
    "MixtralSparseMoeBlock",
    "MixtralPreTrainedModel",
    expert_width="intermediate_size",
    experts="num_local_experts",
)
_QWEN3 = Family("qwen3_moe", "Qwen3MoeConfig", "Qwen3MoeSparseMoeBlock", "Qwen3MoePreTrainedModel")
_QWEN2 = Family(
    "qwen2_moe",
    "Qwen2MoeConfig",
    "Qwen2MoeSparseMoeBlock",
    "Qwen2MoePreTrainedModel",
    shared="shared_expert_intermediate_size",
)
_OLMOE = replace(
    Family("olmoe", "OlmoeConfig", "OlmoeSparseMoeBlock", "OlmoePreTrainedModel"), expert_width="intermediate_size"
)
_DEEPSEEK_V3 = Family(
    "deepseek_v3", "DeepseekV3Config", "DeepseekV3MoE", "DeepseekV3PreTrainedModel", experts="n_routed_experts"
)
_GPT_OSS = replace(_MIXTRAL, module="gpt_oss", config="GptOssConfig", block="GptOssMLP", owner="GptOssPreTrainedModel")
_GRANITE = replace(
    _MIXTRAL, module="granitemoe", config="GraniteMoeConfig", block="GraniteMoeMoE", owner="GraniteMoePreTrainedModel"
)
_LLAMA4 = replace(
    _MIXTRAL, module="llama4", config="Llama4TextConfig", block="Llama4TextMoe", owner="Llama4PreTrainedModel"
)

_NORMALIZED = RoutingSpec(gate="softmax", order="score_first", fp32_gate=False, router="gate")
_UNNORMALIZED = replace(_NORMALIZED, weight_sum="free")
_SELECTED = RoutingSpec(gate="softmax", order="select_first", fp32_gate=False, router="router")

mixtral_block = _MIXTRAL.factory(_NORMALIZED)
"""Mixtral: softmax over all, the best a, normalized over them."""
mixtral_grouped_block = _MIXTRAL.factory(_NORMALIZED, experts_implementation="grouped_mm")
"""The same with the grouped product that a model takes by default; it needs widths that are multiples of 8."""
mixtral_jitter_block = _MIXTRAL.factory(_NORMALIZED, router_jitter_noise=0.1)
"""The same with router_jitter_noise, which is written into the experts' input (transformers #33969)."""
qwen3_block = _QWEN3.factory(_NORMALIZED, norm_topk_prob=True)
"""Qwen3-MoE as it is published: norm_topk_prob=True."""
qwen3_unnormalized_block = _QWEN3.factory(_UNNORMALIZED, norm_topk_prob=False)
"""Qwen3-MoE by the config's default, norm_topk_prob=False: probabilities as they are."""
qwen2_block = _QWEN2.factory(replace(_UNNORMALIZED, shared=True))
"""Qwen2-MoE: probabilities as they are, and a shared expert with its own gate."""
olmoe_block = _OLMOE.factory(_UNNORMALIZED, norm_topk_prob=False)
"""OLMoE as it is published: norm_topk_prob=False, on purpose."""
olmoe_normalized_block = _OLMOE.factory(_NORMALIZED, norm_topk_prob=True)
"""OLMoE with norm_topk_prob=True."""
deepseek_v3_block = _DEEPSEEK_V3.factory(
    RoutingSpec(
        gate="sigmoid",
        order="score_first",
        weight_sum=2.5,
        groups=4,
        group_limit=2,
        group_rank="top2_sum",
        selection_bias="e_score_correction_bias",
        fp32_gate=True,
        router="gate",
        shared=True,
    ),
    n_group=4,
    topk_group=2,
)
"""DeepSeek-V3: sigmoid, bias for the choice alone, groups by their two best, the weights scaled by 2.5."""
gpt_oss_block = _GPT_OSS.factory(_SELECTED)
"""gpt-oss: the best a of biased logits, softmax over those; experts transposed, interleaved and with biases."""
granite_block = _GRANITE.factory(_SELECTED)
"""Granite-MoE: the best a logits, softmax over those."""
llama4_block = _LLAMA4.factory(
    RoutingSpec(gate="sigmoid", weight_sum="free", fp32_gate=False, router="router", apply_on="input", shared=True)
)
"""Llama 4: sigmoid of the best logits, which multiplies the experts' input."""

mixtral_router = router_of(mixtral_block)
mixtral_loss_router = router_of(
    mixtral_block, auxiliary_loss="transformers.models.mixtral.modeling_mixtral:load_balancing_loss_func"
)
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
