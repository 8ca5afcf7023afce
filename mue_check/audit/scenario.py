"""Read a Scenario from a model's configuration, by the attribute names of transformers, nanoGPT and torchtitan."""

import math
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from torch import nn

from mue_check.audit.setup import AuditError, model_attribute
from mue_check.errors import SpecError, with_article
from mue_check.routing.hugging_face import ACTIVATED, DEPTH, EXPERT_HIDDEN, HIDDEN, SHARED, SHARED_HIDDEN, TOTAL, WIDTH
from mue_check.spec import REFERENCE_HEAD_WIDTH, Dense, Experts, ModelSpec, Scenario
from mue_check.spec_text import parse_scenario, says

_HEADS = ("num_attention_heads", "n_head", "n_heads")


def scenario_of(model_or_config: object, *, batch: int = 1, steps: int = 1) -> Scenario:
    """The target that a configuration describes, with ``batch`` tokens per step and ``steps`` steps.

    Takes the configuration, or a model that has it as ``config``. A router whose weights are not normalized
    (``norm_topk_prob=False``) is "moge" in ``mue_check.routing.variants``. SpecError names what is missing.
    """
    config = config_of(model_or_config)
    if config is None:
        raise SpecError(
            f"{with_article(type(model_or_config))} has no configuration to read the target from: pass the target"
        )
    width, depth = _need(config, "width", WIDTH), _need(config, "depth", DEPTH)
    total = _number(config, TOTAL)
    feed_forward = Dense(hidden=_dense_hidden(config, width)) if not total or total == 1 else _experts(config, total)
    model = ModelSpec(width=width, depth=depth, feed_forward=feed_forward, head_width=_head_width(config, width))
    return Scenario(model=model, tokens_per_step=batch, steps=steps)


def scenarios_of(
    model: nn.Module, reference: Scenario | str, target: Scenario | str | None
) -> tuple[Scenario, Scenario, str]:
    """(reference, target, a note on the head width that was assumed for the reference).

    The rule scales attention by the head width. If the reference's SPEC leaves it out, the target's is used, since
    most models grow by more heads, not by wider ones. AuditError if that is impossible.
    """
    if isinstance(reference, Scenario):
        return reference, target_of(model, target, reference), ""
    if says(reference, "dh"):
        source = parse_scenario(reference)
        return source, target_of(model, target, source), ""
    source = parse_scenario(reference, head_width=1)
    goal = target_of(model, target, source)
    note = "taken as the target's, {}, since its SPEC has no dh"
    if isinstance(target, str) and not says(target, "dh") and config_of(model) is None:
        # neither states it, and any width that divides both will do
        width = math.gcd(REFERENCE_HEAD_WIDTH, source.model.width, goal.model.width)
        goal = replace(goal, model=replace(goal.model, head_width=width))
        note = "taken as the target's, since neither SPEC has dh"
    width = goal.model.head_width
    if source.model.width % width:
        raise AuditError(
            f"the reference {reference!r} has no head width (dh), and cannot have the target's: {width} does not "
            f"divide its d={source.model.width}"
        )
    source = replace(source, model=replace(source.model, head_width=width))
    return source, goal, f"the reference's head width is {note.format(width)}"


def stated_steps(reference: Scenario | str, target: Scenario | str | None, goal: Scenario) -> int | None:
    """The number of optimizer steps of the run, if either SPEC states it."""
    given = any(isinstance(spec, Scenario) or (spec is not None and says(spec, "T")) for spec in (reference, target))
    return goal.steps if given else None


def target_of(model: nn.Module, target: Scenario | str | None, reference: Scenario) -> Scenario:
    """The scenario to judge the model as; AuditError if neither a SPEC nor a configuration gives it."""
    if isinstance(target, Scenario):
        return target
    readable = config_of(model) is not None
    if target is None and not readable:
        raise AuditError(
            f"the model ({type(model).__name__}) has no configuration to read the target from: pass --target SPEC "
            "(target= in Python)"
        )
    own = reference
    if readable:
        try:
            own = scenario_of(model, batch=reference.tokens_per_step, steps=reference.steps)
        except SpecError:
            # an unreadable configuration does not matter if the target is given
            if target is None:
                raise
    return own if target is None else parse_scenario(target, default=own)


def config_of(model_or_config: object) -> Any:
    """A language model's configuration: the object itself, its ``config`` or the text part of that; None if neither."""
    config: Any = model_attribute(model_or_config, "config") or model_or_config
    if isinstance(config, Mapping):
        config = SimpleNamespace(**{str(key): value for key, value in config.items()})
    part = getattr(config, "get_text_config", None)
    config = part() if callable(part) else config
    return config if _number(config, WIDTH) and _number(config, DEPTH) else None


def router_is_normalized(config: object) -> bool:
    """Whether the configuration says that the active weights of a token sum to a constant."""
    return getattr(config, "norm_topk_prob", True) is not False


def _experts(config: object, total: int) -> Experts:
    hidden = _need(config, "width of an expert", (*EXPERT_HIDDEN, *HIDDEN))
    shared = _number(config, SHARED) or 0
    wide = _number(config, SHARED_HIDDEN) or 0
    if wide % hidden:
        raise SpecError(
            f"the shared expert is {wide} wide and the routed ones {hidden}, which is no whole number of shared "
            "experts of that width: pass the target"
        )
    sigmoid = getattr(config, "scoring_func", "") == "sigmoid" or getattr(config, "model_type", "") == "deepseek_v3"
    normalized = "sigmoid_norm" if sigmoid else "softmax_norm"
    return Experts(
        total=total,
        activated=_need(config, "activated experts", ACTIVATED),
        hidden=hidden,
        shared=wide // hidden or shared,  # a width is that of all of them
        router=normalized if router_is_normalized(config) else "moge",
    )


def _dense_hidden(config: object, width: int) -> int:
    # GPT-2 and nanoGPT leave it out if it is four times the width
    return _number(config, HIDDEN) or (4 * width if hasattr(config, "n_embd") else 0) or _need(config, "H", HIDDEN)


def _head_width(config: object, width: int) -> int:
    """The width of a head. Multi-head latent attention has two; the width of the values is the one that divides d."""
    stated = _number(config, ("v_head_dim", "head_dim")) or width // _need(config, "heads", _HEADS)
    if width % stated:
        raise SpecError(
            f"its heads are {stated} wide, which does not divide d={width}: pass the target, with a dh that does"
        )
    return stated


def _number(config: object, names: tuple[str, ...]) -> int | None:
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _need(config: object, what: str, names: tuple[str, ...]) -> int:
    value = _number(config, names)
    if value is None:
        raise SpecError(f"{with_article(type(config))} does not state its {what}: it has none of {', '.join(names)}")
    return value
