"""The mixtures of transformers by name get the right verdicts: no false alarms, and real defects are named."""

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
import torch

from mue_check.audit import audit_model
from mue_check.audit.hugging_face import prescribed_set_up
from mue_check.cli import families, main
from mue_check.conformance.api import check_block, check_candidate, check_router
from mue_check.errors import ClaimError
from mue_check.judge.verdict import Verdict
from mue_check.routing.factory import SHAPES, load_candidate
from mue_check.routing.hugging_face import family, family_names
from mue_check.rules import HyperParameters

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="needs transformers: pip install 'mue_check[hf]'"
)
SHORT = SHAPES[1:2]
WIDE = tuple(replace(shape, d=40, f=16) for shape in SHORT)
"""Every width a multiple of 8: the grouped product takes no other."""
TOP1, GATE = "router-gradient-top1", "fit-gate"
FALLS = {"fit-scale": "probabilities as they are: their sum falls with E"}
POOLED = {"aux-layers": "load_balancing_loss_func adds the layers up before the product (#31464)"}
INFEASIBLE = {"group-infeasible": "a above what the groups hold takes experts at -inf (#48647)"}
JITTER = {"input-mutation": "the jitter is written into the block's input (#33969)"}
FREE = {"fit-scale": "a sum of sigmoids grows with a"}
INPUT = {"fit-output": "weights multiply the experts' input"}
BASE = HyperParameters(lr=1e-2, weight_decay=0.1, init_std=0.02)


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The expected results: which checks fail and why, and the factor R if one transfers."""

    expected: Mapping[str, str] = field(default_factory=dict)
    factor: str = "fits with R = a"

    def __post_init__(self) -> None:
        assert ("fit-scale" in self.expected) == (self.factor == "no constant")


NORMALIZED = Expected()
UNNORMALIZED = Expected(expected=FALLS, factor="no constant")
DEEPSEEK = Expected(expected=INFEASIBLE, factor="fits with R = a / 2.5")
ROUTERS = {
    "MixtralConfig": NORMALIZED,
    "Qwen3MoeConfig,norm_topk_prob=true": NORMALIZED,
    "Qwen2MoeConfig": UNNORMALIZED,
    "OlmoeConfig": UNNORMALIZED,
    "DeepseekV3Config": DEEPSEEK,
    "GptOssConfig": NORMALIZED,
    "GraniteMoeConfig": NORMALIZED,
    "MiniMaxM2Config": NORMALIZED,
    "Gemma4TextConfig": Expected(expected={"fit-scale": "one learned scale per expert"}, factor="no constant"),
    "LongcatFlashConfig": Expected(
        expected={"fit-scale": "null experts", "fit-choice": "null experts"}, factor="no constant"
    ),
}
BLOCKS = {
    "Qwen3MoeConfig": UNNORMALIZED,
    "DeepseekV3Config": DEEPSEEK,
    "GptOssConfig": NORMALIZED,
    "MixtralConfig,experts_implementation=grouped_mm": NORMALIZED,
    "MixtralConfig,router_jitter_noise=0.1": Expected(expected=JITTER),
    "Llama4TextConfig": Expected(expected=FREE | INPUT, factor="no constant"),
    "PhimoeConfig": Expected(expected={"fit-scale": "two masked softmaxes"}, factor="no constant"),
    "HunYuanMoEV1Config": NORMALIZED,
}


@pytest.mark.parametrize("name", ROUTERS)
def test_routers(name: str) -> None:
    every = name in ("MixtralConfig", "DeepseekV3Config", "LongcatFlashConfig")
    judge("router", name, ROUTERS[name], () if every else SHORT)


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(name: str) -> None:
    judge("block", name, BLOCKS[name], WIDE if "grouped" in name else SHORT)


def judge(kind, name, expected, shapes) -> None:  # type: ignore[no-untyped-def]
    results = check_candidate(kind, f"hf:{name}", seeds=1, shapes=shapes, expected=expected.expected, time_limit=120.0)
    alarms = [r for r in results if r.against]
    assert not alarms, "\n".join(r.explain() for r in alarms)
    (scale,) = (r for r in results if r.check == "fit-scale")
    assert expected.factor in scale.measured


def test_null_experts_that_pass_their_input_on_are_no_shared_part() -> None:
    """LongCat raises at a = 1, which these checks do not ask for."""
    only = ["runs", "weight-sum", "selection", "recomposition", "shared-unscaled", "experts-train", "gradient-split"]
    results = check_block("hf:LongcatFlashConfig", only=only, seeds=1, shapes=SHORT)
    assert not [r for r in results if r.against], [r.explain() for r in results if r.against]
    (shared,) = (r for r in results if r.check == "shared-unscaled")
    assert "pass their input on" in shared.measured


def test_a_loss_of_the_library_is_found() -> None:
    loss = "transformers.models.mixtral.modeling_mixtral:load_balancing_loss_func"
    claim = replace(load_candidate("router", "hf:MixtralConfig").claim, auxiliary_loss=loss)
    aux = ["aux-uniform", "aux-imbalance", "aux-layers", "aux-split", "aux-gradient"]
    results = check_router("hf:MixtralConfig", claim=claim, only=aux, seeds=1, shapes=SHORT, expected=POOLED)
    assert not [r for r in results if r.against]


def test_defects_of_the_library_are_named() -> None:
    for kind, name, check, measured in (
        ("router", "AfmoeConfig", "load-at-init", "1 different selections"),
        ("router", "DeepseekV4Config", "extreme-logits", "gradients are not finite"),
        ("block", "LongcatFlashConfig", "runs", "modeling_longcat_flash.py"),
        ("block", "SwitchTransformersConfig", "expert-init", "down"),
    ):
        (found,) = check_candidate(kind, f"hf:{name}", only=[check], seeds=1)  # type: ignore[arg-type]
        assert found.broken, name
        assert measured in found.measured


def test_a_wrong_claim_of_a_right_router_is_seen() -> None:
    for block, claim, measured in (
        ("Llama4TextConfig", {"weight_sum": "free"}, "input"),
        ("DeepseekV3Config", {"shared": True, "weight_sum": 2.5, "route_scale": 2.5}, "the scale 2.5 is not applied"),
    ):
        (found,) = check_block(f"hf:{block}", claim=claim, only=["recomposition"], seeds=1, shapes=SHORT)
        assert found.outcome == "failed"
        assert measured in found.measured


def test_the_claim_is_read_from_configuration_and_code() -> None:
    claim = load_candidate("block", "hf:DeepseekV3Config").claim
    assert (claim.gate, claim.weight_sum, claim.groups, claim.group_rank) == ("sigmoid", 2.5, 4, "top2_sum")
    assert load_candidate("block", "hf:Qwen3MoeConfig").claim.weight_sum == "free"
    assert load_candidate("block", "hf:Qwen3MoeConfig,norm_topk_prob=true").claim.weight_sum == 1.0
    assert load_candidate("block", "hf:Llama4TextConfig").claim.apply_on == "input"
    assert load_candidate("block", "hf:BeamConfig").claim.route_scale == 2.5
    longcat = load_candidate("router", "hf:LongcatFlashConfig").claim
    assert (longcat.kind, longcat.null_experts) == ("variable", "identity")


def test_every_family_is_found() -> None:
    names = set(family_names())
    assert {"MixtralConfig", "Qwen3MoeConfig", "DeepseekV3Config", "GptOssConfig", "Llama4TextConfig"} <= names
    assert "LlamaConfig" not in names


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("LlamaConfig", "has no number of experts"),
        ("NoSuchConfig", "no configuration of that name"),
        ("Qwen3MoeConfig,wrong=1", "is no FIELD=VALUE"),
    ],
)
def test_names_without_a_mixture_are_refused(name: str, says: str) -> None:
    with pytest.raises(ClaimError, match=says):
        family(name)


def test_a_block_that_needs_more_than_tokens_is_refused() -> None:
    with pytest.raises(ClaimError, match=r"cannot be called with tokens alone.*try mue_check router"):
        load_candidate("block", "hf:Gemma4TextConfig")
    with pytest.raises(ClaimError, match="returns no weights and indices: check the block"):
        load_candidate("router", "hf:JetMoeConfig")


def test_weights_are_the_librarys_init() -> None:
    torch.manual_seed(0)
    block = family("GptOssConfig").make_block(32, 16, 64, 2)
    for name, parameter in block.named_parameters():
        expected = 0.0 if name.endswith("proj_bias") else 0.2
        assert float(parameter.std()) == pytest.approx(expected, rel=0.3), name


def test_an_audit_by_name_passes() -> None:
    setup, judging = prescribed_set_up("hf:Qwen3MoeConfig", reference="d=32,L=2,H=32", base=BASE)
    report = audit_model(setup.model, setup.optimizers, **judging)
    assert report.verdict == Verdict.PASS, str(report)


@pytest.mark.usefixtures("in_process")
def test_the_command_completes_the_target_of_an_audit_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    """HunYuan's configuration does not say that there is a shared expert."""
    assert main(["audit", "hf:HunYuanMoEV1Config", "--reference", "d=32,L=2,H=32", "--quiet"]) == 0
    assert "all as prescribed" in capsys.readouterr().out


def test_the_table_of_families(monkeypatch, tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    """One that fails is an error until a note says why."""
    monkeypatch.setattr(families, "ProcessPoolExecutor", InProcess)
    monkeypatch.setattr(families, "_checked", lambda kind, name, seeds: (f"FAIL ({kind})", kind == "block"))
    notes = tmp_path / "notes.toml"
    notes.write_text('OlmoeConfig = "because"\n')
    out = tmp_path / "out.md"
    command = ["families", "OlmoeConfig", "--out", str(out)]
    assert main(command) == 1
    assert "unexplained: OlmoeConfig" in capsys.readouterr().out
    assert main([*command, "--notes", str(notes)]) == 0
    assert "| OlmoeConfig | FAIL (router) | FAIL (block) | PASS" in out.read_text()
    assert "| because |" in out.read_text()
    assert main(["families", "OlmoConfig"]) == 2
    assert "unknown family 'OlmoConfig'" in capsys.readouterr().err


class InProcess:
    """A pool of no processes."""

    def __init__(self, *_: object, **__: object) -> None:
        self.map = map

    def __enter__(self) -> "InProcess":
        return self

    def __exit__(self, *_: object) -> None:
        return


def test_without_transformers_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ClaimError, match=r"^hf: names need transformers 5: pip install 'mue_check\[hf\]'"):
        family("NoSuchFamilyConfig")
