"""The right candidates, and what the checks of conformance say of them and of mutants."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mue_check.conformance.registry import checks_for
from mue_check.conformance.result import CheckResult, verdict_of
from mue_check.conformance.runner import TIME_LIMIT, Options, run_checks
from mue_check.judge.verdict import Verdict
from mue_check.mutants.mutant import CheckOutcome, Mutant
from mue_check.mutants.routing import auxiliary, blocks, capacity, gates, selection
from mue_check.routing.factory import Candidate, candidate_of


def loss(function: Callable[..., Any], name: str) -> Candidate:
    """An auxiliary loss, in the claim of a right router."""
    claim = replace(gates.MixtralRouter.routing_spec, auxiliary_loss=f"{function.__module__}:{function.__name__}")
    return candidate_of("router", gates.MixtralRouter, name=name, claim=claim)


_ROUTERS = {
    "complete_mue": gates.CompleteMueRouter,
    "mixtral": gates.MixtralRouter,
    "olmoe": gates.OlmoeRouter,
    "gpt_oss": gates.GptOssRouter,
    "switch": gates.SwitchRouter,
    "switch_loss": auxiliary.SwitchLossRouter,
    "switch_capacity": capacity.SwitchCapacityRouter,
    "llama4": gates.Llama4Router,
    "deepseek_v3": selection.DeepSeekV3Router,
    "moonlight": selection.MoonlightRouter,
    "unscaled": selection.UnscaledRouter,
    "ernie": selection.ErnieRouter,
    "pangu": selection.PanguRouter,
    "torchtitan": selection.TorchtitanRouter,
    "megatron": capacity.MegatronRouter,
    "megatron_capacity": capacity.MegatronCapacityRouter,
    "deepspeed": capacity.DeepSpeedRouter,
    "expert_choice": capacity.ExpertChoiceRouter,
}
_BLOCKS = {
    "complete_mue_block": blocks.CompleteMueBlock,
    "mixtral_block": blocks.MixtralBlock,
    "olmoe_block": blocks.OlmoeBlock,
    "gpt_oss_block": blocks.GptOssBlock,
    "megablocks_block": blocks.MegablocksBlock,
    "pangu_block": blocks.PanguBlock,
    "switch_block": blocks.SwitchBlock,
    "torchtitan_block": blocks.TorchtitanBlock,
    "megatron_block": blocks.MegatronBlock,
    "deepspeed_block": blocks.DeepSpeedBlock,
    "expert_choice_block": blocks.ExpertChoiceBlock,
    "deepseek_v3_block": blocks.DeepSeekV3Block,
    "moonlight_block": blocks.MoonlightBlock,
    "sglang_block": blocks.SglangBlock,
    "llama4_block": blocks.Llama4Block,
}
ROUTERS = tuple(candidate_of("router", factory, name=name) for name, factory in _ROUTERS.items())
BLOCKS = tuple(candidate_of("block", factory, name=name) for name, factory in _BLOCKS.items())
LOSSES = (loss(auxiliary.switch_loss, "switch_auxiliary"), loss(auxiliary.mixtral_loss, "mixtral_auxiliary"))
RIGHT = (*ROUTERS, *BLOCKS, *LOSSES)


@dataclass(frozen=True, kw_only=True)
class RightResult:
    """The verdicts on a right candidate, its warnings, and the checks that fail although it is right."""

    name: str
    kind: str
    claim: Verdict
    fit: Verdict
    fit_measured: str
    warned: tuple[str, ...]
    false_alarms: tuple[str, ...]
    cases: int


def candidate(mutant: Mutant) -> Candidate:
    """A mutant as the checks are given it."""
    if mutant.kind == "auxiliary_loss":
        return loss(mutant.build, mutant.name)
    return candidate_of("block" if mutant.kind == "block" else "router", mutant.build, name=mutant.name)


def results_of(candidate: Candidate, options: Options) -> list[CheckResult]:
    """Every check of a candidate."""
    return list(run_checks(candidate, checks_for(candidate.kind), options))


def examine_routing(mutant: Mutant) -> tuple[CheckOutcome, ...]:
    """Every check of a mutant at one seed; an error elsewhere counts as caught, but must not pass for the finding."""
    return tuple(
        CheckOutcome(
            check=r.check,
            verdict=r.outcome,
            measured=r.measured,
            caught=r.broken and r.severity == "must",
            named=r.outcome == "failed",
        )
        for r in results_of(candidate(mutant), Options(seeds=1))
    )


def run_right(seeds: int, candidates: Sequence[Candidate] = RIGHT) -> Iterator[RightResult]:
    """Every check of each right candidate, at every shape and ``seeds`` seeds."""
    for right in candidates:
        # the time limit is for one seed
        results = results_of(right, Options(seeds=seeds, time_limit=TIME_LIMIT * seeds))
        claim = [r for r in results if r.question == "claim"]
        alarms = [r.check for r in claim if r.severity == "must" and (r.broken or r.outcome == "unknown")]
        yield RightResult(
            name=right.name,
            kind="auxiliary loss" if right in LOSSES else right.kind,
            claim=verdict_of(results, "claim"),
            fit=verdict_of(results, "fit"),
            fit_measured=next(r.measured for r in results if r.check == "fit-scale"),
            warned=tuple(r.check for r in results if r.warning),
            false_alarms=tuple(alarms),
            cases=sum(r.cases for r in claim),
        )
