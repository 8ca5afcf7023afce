"""The suites as people run them, looked at from outside."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mue_check.cli import main

ROOT = Path(__file__).parents[1]
ROUTERS = """
import torch

NAME = "text"


def raises(d_model, n_experts, top_k):
    raise ValueError("no such size")


class Scores(torch.nn.Linear):
    def __init__(self, d_model, n_experts, top_k):
        super().__init__(d_model, n_experts)
        self.top_k = top_k

    def forward(self, x):
        return super().forward(x).sigmoid()


class Right(Scores):
    def forward(self, x):
        weights, indices = super().forward(x).topk(self.top_k, dim=-1)
        return weights / weights.sum(-1, keepdim=True), indices


class Narrow(Right):
    def forward(self, x):
        return super().forward(x[1:] if self.top_k == 4 else x)


class Branching(Right):
    def forward(self, x):
        return super().forward(x / 2 if x.abs().max() > 1e9 else x)
"""
Run = Callable[..., Any]
"""Runs pytest in this process (tests/conftest.py)."""
QUICK = ("suites/test_width.py", "-k", "test_scales and not width_of")


def test_what_is_imported_late() -> None:
    """The plugin, which is in other people's runs, imports nothing heavy; names and commands import no torch."""
    heavy = "{'torch', 'numpy', 'pandas', 'matplotlib', 'scipy', 'jinja2', 'ray'}"
    rules = "['rules', '--reference=d=32,L=2,H=32', '--target=d=64,H=64']"
    code = f"""import sys, mue_check.pytest_plugin
print(sorted({heavy} & set(sys.modules)))
import mue_check.spec, mue_check.routing.variants, mue_check.cli.bench
from mue_check.cli import main
print(main({rules}), 'torch' in sys.modules, 'audit_model' in mue_check.__all__)"""
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.startswith("[]\n")
    assert out.stdout.endswith("\n0 False True\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--tier", "huge"], "unknown tier 'huge': allowed are smoke, cpu, lab, gpu, full"),
        (["--axes", "width,hight"], "unknown axis 'hight': allowed are width, depth, batch, duration"),
        (["--beside", "mup,complete_mue"], "--beside complete_mue: that is the rule under test"),
        (["--heldout", "d=32"], "is the reference itself"),
        (
            ["--rule", "u_mup"],
            "unknown rule 'u_mup' (did you mean 'mup'?): allowed are complete_mue, complete_mue_literal",
        ),
        (["--router", "mine"], "--router 'mine': write builtin:NAME, MODULE:FACTORY or FILE.py:FACTORY; NAMEs are sig"),
        (["--router", "absent:factory"], "--router 'absent:factory': cannot import 'absent': ModuleNotFoundError"),
        (["--router", "{tmp}/mine.py:NAME"], "mine.py:NAME': NAME is a str, nothing to call"),
        (
            ["--router", "{tmp}/mine.py:raises", "-n", "2"],
            "at d_model=32, n_experts=8, top_k=2: the factory raises ValueError: no",
        ),
        (["--router", "{tmp}/mine.py:Narrow"], "n_experts=16, top_k=4: indices are [49, 4], not [50, K]"),
        (["--router", "{tmp}/mine.py:Scores+selection_bias"], "+selection_bias goes with builtin:NAME only"),
        (["--router", "builtin:best"], "unknown router 'best': allowed are sigmoid_norm"),
        (["--router", "builtin:expert_choice+selection_bias"], "has no meaning with router 'expert_choice'"),
        (["--heldout", "B=100"], "batch becomes"),
        (
            ["--corpus", "wiki"],
            "unknown corpus 'wiki': allowed are markov, docstrings, image_low, image_high, keyframe, video,",
        ),
        (["--modality", "smell"], "unknown modality 'smell': allowed are language, image_low"),
        (["--modality", "video", "--corpus", "markov"], "'markov' has no images, and a diffusion model needs them"),
        (["--corpus", "absent.npy"], "absent.npy' cannot be read: [Errno 2] No such file"),
        (["--corpus", "{tmp}/short.bin"], "its train part has 90 tokens"),
        (["--study", "{tmp}/file/study"], "cannot be written"),
        (
            ["--tolerance", "99"],
            "tolerance 99: must be above 0 and at most 2 octaves, a factor of 4 in the learning rate",
        ),
        (["--claim", "claim.toml"], "--claim: goes with a router of your own"),
        (["--claim", "absent.toml", "--router", "docs/examples/my_router.py:Router"], "cannot be read: No such file"),
        (["--expected", "absent.toml"], "cannot be read: No such file"),
        (["--precision", "fp16"], "unknown precision 'fp16' (did you mean 'bf16'?): allowed are fp32, tf32, bf16"),
        (["--tier", "gpu"], "needs a CUDA device"),
    ],
)
def test_bad_options_are_one_line_and_exit_4(
    tmp_path: Path, arguments: list[str], says: str, run_pytest_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.zeros(100, dtype=np.uint16).tofile(tmp_path / "short.bin")
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "mine.py").write_text(ROUTERS)
    study = tmp_path / "study"
    filled = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    if "--study" not in filled:
        filled += ["--study", str(study)]
    empty = tmp_path / "bin"  # a PATH without nvidia-smi
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))
    result = run_pytest_here("suites/", *filled)
    assert result.code == 4, result.out + result.errors
    (error,) = result.error_lines
    assert says.replace("{tmp}", str(tmp_path)) in error
    assert not study.exists()


def test_ids(output: str) -> list[str]:
    return [line.split("/")[-1] for line in output.splitlines() if "::" in line]


test_ids.__test__ = False  # type: ignore[attr-defined]
Collect = Callable[..., list[str]]


@pytest.fixture
def collected(run_pytest_here: Run) -> Collect:
    """The tests that pytest collects with these arguments."""

    def collect(*arguments: str) -> list[str]:
        result = run_pytest_here(*arguments, "--collect-only", "-q")
        assert result.code == 0, result.out + result.errors
        return test_ids(result.out)

    return collect


def test_the_suites_are_found_from_any_folder(tmp_path: Path, collected: Collect, run_pytest_here: Run) -> None:
    study = f"--study={tmp_path / 'study'}"
    here = collected("suites/", study)
    there = run_pytest_here(ROOT / "suites", study, "--collect-only", "-q", cwd=tmp_path)
    assert test_ids(there.out) == here
    assert "test_width.py::test_transfer[markov-width-d64]" in here
    assert "test_controls.py::test_no_batch_factors[markov-batch_at_fixed_tokens-B4]" in here


def test_axes_and_corpora_choose_tests(tmp_path: Path, collected: Collect) -> None:
    study = f"--study={tmp_path / 'study'}"
    chosen = collected("suites/", "--axes=activated_experts", study)
    assert chosen
    assert all("-activated_experts" in test for test in chosen)
    both = [test for test in collected("suites/", "--tier=cpu", study) if "test_router.py" not in test]
    assert {"docstrings", "markov", "pairs", "memory"} == {
        test.split("[")[1].split("-")[0].rstrip("]") for test in both
    }
    assert "composite]" in next(test for test in both if "test_sigma0" not in test)  # longest first
    assert "test_scales" in both[-1]
    only = [test for test in collected("suites/", "--tier=cpu", "--corpus=docstrings", study) if "docstrings" in test]
    assert {test.replace("docstrings", "markov") for test in only} == {test for test in both if "[markov" in test}


SIGMA0 = [
    "test_sampling[markov-noise-d32-16e2a-content_blind]",
    "test_sampling[markov-noise-d32-16e2a-sigmoid_norm]",
]


def test_the_laboratory_asks_its_questions(tmp_path: Path, collected: Collect, run_pytest_here: Run) -> None:
    study, suite = f"--study={tmp_path / 'study'}", "suites/test_sigma0.py"
    ids = [test.partition("::")[2] for test in collected(suite, study)]
    assert sorted(ids) == SIGMA0
    assert sorted(collected(suite, study, "--axes=sigma0")) == [f"test_sigma0.py::{test}" for test in SIGMA0]
    other = run_pytest_here(suite, study, "--axes=width", "--collect-only", "-q")
    assert other.code == 5  # nothing to collect
    large = collected("suites/", study, "--tier=lab", "--axes=sigma0", "--beside=standard")
    kinds = Counter(test.partition("::")[2].partition("[")[0] for test in large if "test_router" not in test)
    # five loads and three blind ones, two batches, three of activated experts and a capacity; shifts of three loads on
    # text too; values of all and of the loads held out, but not of the causal probe, which leaves the rule on purpose
    assert kinds["test_drift"] == 14
    assert kinds["test_shift"] == 17
    assert kinds["test_forecast"] == 10
    assert kinds["test_causal_probe"] == 4
    assert kinds["test_values"] == 24
    assert kinds["test_sampling"] == 2
    assert not [test for test in large if "test_rules" in test]
    assert {test.split("[")[1].split("-")[0] for test in large if "test_gamma" in test} == {"markov", "docstrings"}


def test_other_rules_are_measured_beside(tmp_path: Path, collected: Collect) -> None:
    study = f"--study={tmp_path / 'study'}"
    assert not [test for test in collected("suites/", study) if "test_rules" in test]
    chosen = collected("suites/test_rules.py", study, "--axes=depth,duration", "--beside=standard, mup")
    scales = [test for test in chosen if "test_scales" in test]
    assert {test.split("-")[-1].rstrip("]") for test in scales} == {"standard", "mup"}
    assert sorted(test.split("[")[1].rstrip("]") for test in chosen if test not in scales) == [
        "markov-depth-L8-mup",
        "markov-depth-L8-standard",
        "markov-duration_at_fixed_batch-T2-mup",
        "markov-duration_at_fixed_batch-T2-standard",
    ]


def test_a_router_and_a_composite_change_the_ladders(tmp_path: Path, collected: Collect) -> None:
    study = f"--study={tmp_path / 'study'}"
    suite = ("suites/test_capacity.py", "suites/test_heldout.py")
    assert any("32e2a1s]" in test for test in collected(*suite, study, "--router=builtin:deepseek_v3"))
    composites = collected(*suite, study, "--heldout=d=48,L=4,8e2a")
    assert any("test_transfer[markov-heldout-composite-" in test for test in composites)
    assert any("test_scales[markov-heldout" in test for test in composites)
    assert any("test_early_curve[markov-heldout" in test for test in composites)
    longer = collected(*suite, study, "--heldout=d=48,L=4,8e2a,T=400")
    assert any("test_transfer[markov-heldout-composite-" in test for test in longer)
    assert not any("test_scales[" in test or "test_early_curve[" in test for test in longer if "heldout" in test)


def test_a_wrong_rule_fails_and_says_everything(tmp_path: Path, run_pytest_here: Run) -> None:
    study, junit = tmp_path / "study", tmp_path / "junit.xml"
    result = run_pytest_here(*QUICK, "--rule", "complete_mue_literal", "--study", study, "--junitxml", junit)
    assert result.code == 1
    for part in (
        "FAIL where PASS was expected: coordinates-width-markov-complete_mue_literal",
        "FAIL: change of logits after 5 steps: slope 0 +- 0.25; measured -0.",
        "rule complete_mue_literal, corpus markov, tier smoke; d32: d=32,L=2,H=32,B=256,T=5; d64:",
        "again: pytest 'suites/test_width.py::test_scales[markov-width]' --tier smoke --study",
    ):
        assert part in result.out, result.out
    properties = {p.get("name"): p.get("value") for p in ElementTree.parse(junit).iter("property")}
    assert "FAIL: change of logits" in str(properties["coordinates-width-markov-complete_mue_literal"])


def test_a_users_router_is_measured_and_its_records_outlive_it(tmp_path: Path, run_pytest_here: Run) -> None:
    study, file = tmp_path / "study", tmp_path / "mine.py"
    file.write_text(ROUTERS)
    suite = ("suites/test_capacity.py", "-k", "test_scales", "--study", study, "--router", f"{file}:Branching")
    result = run_pytest_here(*suite)
    assert result.code == 0, result.out + result.errors
    notice = "mine.py:Branching is called run after run, since vmap refuses it: RuntimeError: vmap: It looks like you"
    assert result.out.count(notice) == 1
    assert "(mine.py:33: return super().forward(x / 2 if x.abs().max() > 1e9 else x))" in result.out
    (said,) = [line for line in result.out.splitlines() if line.startswith("coordinates-capacity-markov-")]
    assert re.match(r"coordinates-capacity-markov-complete_mue-mine-Branching-[0-9a-f]{8}: PASS", said)
    file.unlink()
    assert main(["report", str(study)]) == 0
    assert "mine-Branching-" in (study / "report.md").read_text()


def test_no_test_run_is_exit_5(tmp_path: Path, run_pytest_here: Run) -> None:
    assert run_pytest_here("suites/", "-k", "nothing", "--study", tmp_path / "study").code == 5


def test_a_router_that_differs_from_process_to_process_is_refused(tmp_path: Path, run_pytest_here: Run) -> None:
    file = tmp_path / "mine.py"
    doubled = "forward(x if multiprocessing.parent_process() is None else 2 * x).sigmoid()"
    file.write_text("import multiprocessing\n" + ROUTERS.replace("forward(x).sigmoid()", doubled))
    result = run_pytest_here("suites/test_capacity.py", f"--study={tmp_path / 'study'}", f"--router={file}:Right")
    assert result.code == 4
    assert "it behaves differently in another process, so that no run could be repeated" in result.errors


def test_a_routers_conformance_is_asked_by_its_own_suite(tmp_path: Path, run_pytest_here: Run) -> None:
    example, mine, expected = ROOT / "docs/examples/my_router.py", tmp_path / "mine.py", tmp_path / "expected.toml"
    mine.write_text(example.read_text().replace(" / weights.sum(-1, keepdim=True)", ""))
    expected.write_text('bias-selection = "mended next week"\n')
    suite, study, few = "suites/test_router.py", f"--study={tmp_path / 'study'}", "bias-selection or weight-sum"
    broken = run_pytest_here(suite, f"--router={mine}:Router", study, "-k", few, f"--expected={expected}")
    assert broken.code == 1, broken.out
    assert "1 failed, 1 xfailed" in broken.out
    test, law = re.escape(f"{suite}::test_router[{mine}:Router-weight-sum]"), "The weights of a token"
    assert re.search(rf"FAILED {test}: weight-sum: failed; law: +{law}", broken.out), broken.out
    right = run_pytest_here(suite, study, "-k", few)
    assert right.code == 0, right.out
