"""The checks of blocks on the shipped candidates, right and broken, and on the blocks of transformers."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

from mue_check.conformance.case import Case, Found
from mue_check.conformance.registry import Finding, all_checks
from mue_check.mutants.routing import MUTANTS
from mue_check.mutants.routing.examine import BLOCKS, candidate
from mue_check.routing.claim import RoutingSpec
from mue_check.routing.factory import ONE_TOKEN, SHAPES, Candidate, Shape, candidate_of

IDS = (
    "recomposition",
    "dense-equivalence",
    "empty-expert",
    "expert-gradient",
    "gradient-split",
    "experts-train",
    "expert-init",
    "shared-unscaled",
)
ALL = (*SHAPES, ONE_TOKEN)
BROKEN = [bug for bug in MUTANTS if bug.kind == "block" and bug.caught_by in IDS]


def asked(candidate: Candidate, id: str, shape: Shape, seed: int, learned: Found) -> Finding:
    (fitted,) = candidate.shapes((shape,))
    case = Case(candidate=candidate, shape=fitted, seed=seed, device=torch.device("cpu"), found=learned)
    return all_checks()[id].run(case)


def assert_right(candidate: Candidate, shapes: int, first: int) -> None:
    """Every check at some shapes, each time at others and with another seed."""
    learned = Found()
    for number, id in enumerate(IDS):
        for i in range(shapes):
            shape, seed = ALL[(first + 2 * number + 3 * i) % len(ALL)], (first + number + i) % 10
            finding = asked(candidate, id, shape, seed, learned)
            assert finding.status in ("passed", "skipped"), f"{id} at {shape} seed={seed}: {finding}"


@pytest.mark.parametrize("number", range(len(BLOCKS)), ids=[right.name for right in BLOCKS])
def test_right_blocks_pass(number):
    assert_right(BLOCKS[number], 3, number)


@pytest.mark.parametrize("bug", BROKEN, ids=[bug.name for bug in BROKEN])
def test_broken_blocks_are_caught_and_their_cause_is_named(bug):
    broken, learned = candidate(bug), Found()
    found = [asked(broken, bug.caught_by, shape, seed, learned) for shape in SHAPES[:2] for seed in range(2)]
    failures = [f for f in found if f.status == "failed"]
    assert failures
    assert bug.row in failures[0].causes


def _drawn(block: nn.Module) -> nn.Module:
    """Transformers leaves weights unwritten until a whole model draws them."""
    for name, p in block.named_parameters():
        if p.dim() > 1:
            nn.init.normal_(p, std=0.05 if "proj" in name else 0.3)
    return block


def _mixtral(d: int, f: int, n: int, k: int) -> nn.Module:
    from transformers.models.mixtral.modeling_mixtral import MixtralConfig, MixtralSparseMoeBlock

    config = MixtralConfig(hidden_size=d, intermediate_size=f, num_local_experts=n, num_experts_per_tok=k)
    return _drawn(MixtralSparseMoeBlock(config))


def _qwen3(d: int, f: int, n: int, k: int) -> nn.Module:
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeConfig, Qwen3MoeSparseMoeBlock

    sizes = {"hidden_size": d, "moe_intermediate_size": f, "num_experts": n, "num_experts_per_tok": k}
    return _drawn(Qwen3MoeSparseMoeBlock(Qwen3MoeConfig(**sizes, norm_topk_prob=True)))


def _olmoe(d: int, f: int, n: int, k: int) -> nn.Module:
    from transformers.models.olmoe.modeling_olmoe import OlmoeConfig, OlmoeSparseMoeBlock

    config = OlmoeConfig(hidden_size=d, intermediate_size=f, num_experts=n, num_experts_per_tok=k)
    return _drawn(OlmoeSparseMoeBlock(config))


def _qwen2(d: int, f: int, n: int, k: int) -> nn.Module:
    from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeConfig, Qwen2MoeSparseMoeBlock

    sizes = {"hidden_size": d, "moe_intermediate_size": f, "num_experts": n, "num_experts_per_tok": k}
    return _drawn(Qwen2MoeSparseMoeBlock(Qwen2MoeConfig(**sizes, shared_expert_intermediate_size=2 * f)))


def _deepseek(d: int, f: int, n: int, k: int) -> nn.Module:
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Config, DeepseekV3MoE

    sizes = {"hidden_size": d, "moe_intermediate_size": f, "num_local_experts": n, "num_experts_per_tok": k}
    config = DeepseekV3Config(**sizes, n_group=1, topk_group=1, n_shared_experts=2, routed_scaling_factor=2.5)
    return _drawn(DeepseekV3MoE(config))


def _gpt_oss(d: int, f: int, n: int, k: int) -> nn.Module:
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssConfig, GptOssMLP

    config = GptOssConfig(hidden_size=d, intermediate_size=f, num_local_experts=n, num_experts_per_tok=k)
    return _drawn(GptOssMLP(config))


def _granite(d: int, f: int, n: int, k: int) -> nn.Module:
    from transformers.models.granitemoe.modeling_granitemoe import GraniteMoeConfig, GraniteMoeMoE

    config = GraniteMoeConfig(hidden_size=d, intermediate_size=f, num_local_experts=n, num_experts_per_tok=k)
    return _drawn(GraniteMoeMoE(config))


def _llama4(d: int, f: int, n: int, k: int) -> nn.Module:
    from transformers.models.llama4.modeling_llama4 import Llama4TextConfig, Llama4TextMoe

    config = Llama4TextConfig(hidden_size=d, intermediate_size=f, num_local_experts=n, num_experts_per_tok=k)
    return _drawn(Llama4TextMoe(config))


PUBLISHED: dict[str, tuple[Callable[..., nn.Module], RoutingSpec]] = {
    "Mixtral": (_mixtral, RoutingSpec()),
    "Qwen3-MoE": (_qwen3, RoutingSpec()),
    "OLMoE": (_olmoe, RoutingSpec(weight_sum="free")),
    "Qwen2-MoE": (_qwen2, RoutingSpec(weight_sum="free", shared=True)),
    "DeepSeek-V3": (_deepseek, RoutingSpec(weight_sum=2.5, shared=True)),
    "gpt-oss": (_gpt_oss, RoutingSpec()),
    "Granite-MoE": (_granite, RoutingSpec()),
    "Llama-4": (_llama4, RoutingSpec(weight_sum="free", apply_on="input", shared=True)),
}


@pytest.fixture(scope="module")
def transformers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(
            "transformers", reason="transformers is not installed: its blocks are not checked here"
        )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", range(len(PUBLISHED)), ids=list(PUBLISHED))
def test_blocks_of_transformers_pass(number, transformers):
    name = list(PUBLISHED)[number]
    factory, claim = PUBLISHED[name]
    assert_right(candidate_of("block", factory, name=name, claim=claim), 2, number)


@pytest.mark.filterwarnings("ignore")
def test_a_scale_that_deepseeks_block_leaves_to_its_router_is_named(transformers):
    candidate = candidate_of("block", _deepseek, claim=RoutingSpec(shared=True, weight_sum=2.5, route_scale=2.5))
    finding = asked(candidate, "recomposition", SHAPES[0], 0, Found())
    assert finding.status == "failed"
    assert "the scale 2.5 is not applied" in finding.measured
