"""Names of parameters in known model families, and the role that each has there.

Read off transformers 5 (Llama, Mistral, Qwen2, Qwen3, Mixtral, Qwen2-MoE, Qwen3-MoE, OLMoE, DeepSeek-V3, gpt-oss,
Granite-MoE, GPT-2, GPT-NeoX, Phi), nanoGPT, nanochat, torchtitan, torchtune, Megatron-core, torch.nn and DeepSeek's own
release. A name alone decides nothing: ``assign`` asks for the right number of axes, the right kind of module and the
model's width where it belongs.
"""

import re
from dataclasses import dataclass
from typing import Literal

from mue_check.rules import Role

Kind = Literal["linear", "embedding", "norm", "router", "any"]
"""What must hold the parameter: a linear map, a lookup, a norm, a module beside experts, or anything."""


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """A name's last parts (``tail``, a regular expression), with the role, axes and kind of module that go with it.

    ``any_width``: neither axis needs to be the model's width (low-rank attention).
    """

    tail: str
    role: Role
    axes: tuple[int, ...] = (2,)
    kind: Kind = "linear"
    any_width: bool = False

    def matches(self, name: str) -> bool:
        """Whether the dotted ``name`` ends this way."""
        return re.search(rf"(?:^|\.)(?:{self.tail})$", name) is not None


_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""What torch.compile, FSDP and activation checkpointing put into names."""
_SELF = r"(?:self_attn|self_attention|attn|attention)"
_MLP = r"(?:mlp|feed_forward|ffn)"
_SHARED = r"(?:shared_experts?|shared_mlp)"

PATTERNS = (
    Pattern(
        tail=r"(?:embed_tokens|embed_in|wte|tok_embeddings|word_embeddings|token_embedding|embed)\.weight",
        role=Role.TOKEN_EMBEDDING,
        kind="embedding",
    ),
    Pattern(
        tail=r"(?:wpe|position_embeddings?|pos_embeddings?|embed_positions)\.weight",
        role=Role.POSITION_EMBEDDING,
        kind="embedding",
    ),
    Pattern(
        tail=rf"{_SELF}\.(?:[qkv]_proj|qkv_proj|c_attn|c_[qkv]|w[qkv]|[Ww]qkv|query_key_value|linear_qkv)\.weight",
        role=Role.ATTENTION_QKV,
    ),
    Pattern(
        tail=rf"{_SELF}\.(?:q_a_proj|q_b_proj|kv_a_proj_with_mqa|kv_b_proj|wq_a|wq_b|wkv_a|wkv_b)\.weight",
        role=Role.ATTENTION_QKV,
        any_width=True,
    ),
    Pattern(tail=rf"{_SELF}\.in_proj_weight", role=Role.ATTENTION_QKV, kind="any"),
    Pattern(
        tail=rf"{_SELF}\.(?:o_proj|output_proj|out_proj|c_proj|wo|dense|linear_proj)\.weight", role=Role.ATTENTION_OUT
    ),
    # experts before dense layers: their names hold the dense ones
    Pattern(tail=r"experts\.(?:gate_up_proj|gate_proj|w1)", role=Role.EXPERT_GATE, axes=(3,), kind="any"),
    Pattern(tail=r"experts\.(?:up_proj|w3)", role=Role.EXPERT_UP, axes=(3,), kind="any"),
    Pattern(tail=r"experts\.(?:down_proj|w2)", role=Role.EXPERT_DOWN, axes=(3,), kind="any"),
    Pattern(tail=r"experts\.\d+\.(?:gate_up_proj|gate_proj|w1)\.weight", role=Role.EXPERT_GATE),
    Pattern(tail=r"experts\.\d+\.(?:up_proj|w3)\.weight", role=Role.EXPERT_UP),
    Pattern(tail=r"experts\.\d+\.(?:down_proj|w2)\.weight", role=Role.EXPERT_DOWN),
    Pattern(tail=r"block_sparse_moe\.input_linear\.weight", role=Role.EXPERT_GATE, axes=(3,), kind="any"),
    Pattern(tail=r"block_sparse_moe\.output_linear\.weight", role=Role.EXPERT_DOWN, axes=(3,), kind="any"),
    Pattern(
        tail=rf"{_SHARED}\.(?:gate_up_proj|gate_proj|w1|input_linear)(?:\.weight)?",
        role=Role.SHARED_GATE,
        axes=(2, 3),
        kind="any",
    ),
    Pattern(tail=rf"{_SHARED}\.(?:up_proj|w3)(?:\.weight)?", role=Role.SHARED_UP, axes=(2, 3), kind="any"),
    Pattern(
        tail=rf"{_SHARED}\.(?:down_proj|w2|output_linear)(?:\.weight)?", role=Role.SHARED_DOWN, axes=(2, 3), kind="any"
    ),
    Pattern(tail=r"shared_expert_gate\.weight", role=Role.ROUTER),
    Pattern(tail=r"(?:gate|gate\.wg|router|router\.gate|router\.layer)\.weight", role=Role.ROUTER, kind="router"),
    Pattern(tail=rf"{_MLP}\.(?:gate_up_proj|gate_proj|w1)\.weight", role=Role.FFN_GATE),
    Pattern(tail=rf"{_MLP}\.(?:up_proj|c_fc|w3|fc1|fc_in|dense_h_to_4h|linear_fc1)\.weight", role=Role.FFN_UP),
    Pattern(tail=rf"{_MLP}\.(?:down_proj|c_proj|w2|fc2|fc_out|dense_4h_to_h|linear_fc2)\.weight", role=Role.FFN_DOWN),
    Pattern(tail=r"layers\.\d+\.(?:linear1|fc1)\.weight", role=Role.FFN_UP),
    Pattern(tail=r"layers\.\d+\.(?:linear2|fc2)\.weight", role=Role.FFN_DOWN),
    Pattern(tail=r"(?:lm_head|output|output_layer|head|unembedding|embed_out)\.weight", role=Role.UNEMBEDDING),
    Pattern(tail=r"(?:\w*norm\w*|ln_\w+)\.(?:weight|scale)", role=Role.NORM_GAIN, axes=(1,), kind="norm"),
    Pattern(tail=r"\w*bias", role=Role.BIAS, axes=(1, 2), kind="any"),
    Pattern(tail=rf"{_SELF}\.sinks", role=Role.BIAS, axes=(1,), kind="any"),
)
"""In order: the first that matches decides. A fused gate_up_proj goes as the gate; its up half has the same factors."""


def plain_name(name: str) -> str:
    """A parameter's name as it was before its model was wrapped."""
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    while len(parts) > 2 and parts[0] == "module":
        parts = parts[1:]
    return ".".join(parts)


def shape_of(name: str) -> str:
    """A parameter's name with the numbers of layers and experts as ``*``."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", name)
