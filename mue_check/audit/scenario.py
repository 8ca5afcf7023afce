"""A Scenario from a model's own configuration, read by attribute: transformers, nanoGPT and torchtitan spell alike."""

from typing import Any

from mue_check.errors import SpecError
from mue_check.spec import Dense, Experts, ModelSpec, Scenario

_WIDTH = ("hidden_size", "n_embd", "d_model", "dim")
_DEPTH = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads")
_HIDDEN = ("intermediate_size", "n_inner", "ffn_hidden_size", "hidden_dim")
_TOTAL = ("num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts")
_ACTIVATED = ("num_experts_per_tok", "num_experts_per_token", "top_k", "moe_top_k")
_EXPERT_HIDDEN = ("moe_intermediate_size", "expert_hidden_size", *_HIDDEN)
_SHARED_HIDDEN = ("shared_expert_intermediate_size", "shared_intermediate_size")


def scenario_of(model_or_config: object, *, batch: int = 1, steps: int = 1) -> Scenario:
    """The target that a configuration describes, with ``batch`` tokens per step and ``steps`` steps.

    Takes the configuration or a model that carries it as ``config``. Weights of a router that is not normalized
    (``norm_topk_prob=False``) are "moge" in the notation of ``mue_check.routers``. SpecError names what is missing.
    """
    config = config_of(model_or_config)
    if config is None:
        raise SpecError(f"a {type(model_or_config).__name__} carries no configuration to read a target from: give one")
    width, depth = _need(config, "width", _WIDTH), _need(config, "depth", _DEPTH)
    total = _number(config, _TOTAL)
    feed_forward = Dense(hidden=_dense_hidden(config, width)) if not total or total == 1 else _experts(config, total)
    model = ModelSpec(width=width, depth=depth, feed_forward=feed_forward, head_width=_head_width(config, width))
    return Scenario(model=model, tokens_per_step=batch, steps=steps)


def config_of(model_or_config: object) -> Any:
    """The configuration of a language model: the object itself, its ``config``, or the text part of that; or None."""
    config = getattr(model_or_config, "config", model_or_config)
    part = getattr(config, "get_text_config", None)
    config = part() if callable(part) else config
    return config if _number(config, _WIDTH) and _number(config, _DEPTH) else None


def router_is_normalized(config: object) -> bool:
    """Whether the active weights of a token sum to a constant by the configuration's own word."""
    return getattr(config, "norm_topk_prob", True) is not False


def _experts(config: object, total: int) -> Experts:
    hidden = _need(config, "width of an expert", _EXPERT_HIDDEN)
    shared = _number(config, ("n_shared_experts",)) or 0
    wide = _number(config, _SHARED_HIDDEN) or 0
    if wide % hidden:
        raise SpecError(
            f"the shared expert is {wide} wide and the routed ones {hidden}: no whole number of shared experts of the "
            "same width; give the target"
        )
    sigmoid = getattr(config, "scoring_func", "") == "sigmoid" or getattr(config, "model_type", "") == "deepseek_v3"
    normalized = "sigmoid_norm" if sigmoid else "softmax_norm"
    return Experts(
        total=total,
        activated=_need(config, "activated experts", _ACTIVATED),
        hidden=hidden,
        shared=shared + wide // hidden,
        router=normalized if router_is_normalized(config) else "moge",
    )


def _dense_hidden(config: object, width: int) -> int:
    # GPT-2 and nanoGPT leave it out when it is four times the width
    return _number(config, _HIDDEN) or (4 * width if hasattr(config, "n_embd") else 0) or _need(config, "H", _HIDDEN)


def _head_width(config: object, width: int) -> int:
    """The width of a head. Multi-head latent attention has two: the values' is the one that divides d."""
    said = _number(config, ("v_head_dim", "head_dim"))
    return said or width // _need(config, "heads", _HEADS)


def _number(config: object, names: tuple[str, ...]) -> int | None:
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _need(config: object, what: str, names: tuple[str, ...]) -> int:
    value = _number(config, names)
    if value is None:
        raise SpecError(f"a {type(config).__name__} does not say its {what}: none of {', '.join(names)}")
    return value
