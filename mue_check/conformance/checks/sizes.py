"""Kernels are chosen by shape: the routing at the sizes of published models."""

from dataclasses import replace

from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.check import ROUTERS, Check, CheckOutcome, failed, passed, skipped
from mue_check.conformance.checks.groups import group_limit
from mue_check.conformance.checks.selection import load, selection
from mue_check.conformance.checks.weights import gate, weight_sign, weight_sum
from mue_check.errors import ClaimError
from mue_check.user_code import describe_error

_PUBLISHED = ((128, 8), (256, 8), (64, 6), (160, 6), (384, 8), (512, 10), (128, 4), (32, 4), (60, 4), (16, 2), (8, 2))
"""(E, a) of Qwen3, DeepSeek-V3, Moonlight, DeepSeek-V2, Kimi K2, Qwen3-Next, gpt-oss (two), Qwen2-MoE, Phi, Mixtral."""
_TOKENS = 160
"""More than one tile of tokens."""
_LAWS = (load, weight_sign, weight_sum, gate, selection, group_limit)


def published_sizes(case: ConformanceCase) -> CheckOutcome:
    """At the numbers of experts of published models, load, weights and selection are as at small ones."""
    if case.chosen:
        return skipped("the sizes of --shapes alone are asked for")
    refused: list[str] = []
    for experts, activated in _PUBLISHED:
        at = case.at(experts=experts, activated=activated, tokens=_TOKENS)
        where = f"E={at.shape.experts} a={at.shape.activated}"
        for law in _LAWS:
            try:
                outcome = law(at)
            except ClaimError:
                raise
            except Exception as error:  # a kernel may refuse a size: that is loud
                refused.append(f"{where} ({describe_error(error)})")
                break
            if outcome.status == "failed":
                name = law.__name__.replace("_", "-")
                return replace(outcome, measured=f"{name} at {where}: {outcome.measured}", causes=(33,))
    if len(refused) == len(_PUBLISHED):
        return failed(f"none of {len(refused)} published sizes runs: {refused[0]}")
    return passed("as at small sizes" + (f"; refused: {', '.join(refused)}" if refused else ""))


CHECKS = (Check(run=published_sizes, source="MetaX-MACA/vLLM-metax #270", since="0.4", candidates=ROUTERS, once=True),)
