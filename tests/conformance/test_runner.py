"""Whatever a candidate does, each check has a result, and there are no side effects."""

import json
import random
import time
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

from mue_check.cli import main
from mue_check.conformance.api import check_router
from mue_check.conformance.result import verdict_of
from mue_check.errors import ClaimError
from mue_check.judge.verdict import Verdict
from mue_check.mutants.routing.gates import CompleteMueRouter
from tests import misbehaving

ROOT = Path(__file__).parents[2]
MODULE = "tests.misbehaving"
FEW = ["runs", "weight-sum", "input-mutation", "fit-choice"]


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("Raises", "the forward pass raises RuntimeError: router was not initialised (misbehaving.py:"),
        ("RaisesBaseException", "the forward pass raises GivesUp: no"),
        ("Exits", "the forward pass raises SystemExit: 0"),
        ("WrongShape", "cannot tell weights and choice"),
        ("ReturnsNone", "the router returns None, no tensors (misbehaving.py:"),
        ("WrongType", "declare it: RoutingSpec(returns="),
        ("WantsMoreInForward", "the forward pass raises TypeError"),
        ("WantsMoreInFactory", "the factory raises TypeError"),
        ("not_a_module", "not a torch.nn.Module"),
    ],
)
def test_what_no_check_could_be_about_is_said_once(factory: str, message: str) -> None:
    with pytest.raises(ClaimError) as caught:
        check_router(getattr(misbehaving, factory), only=FEW, seeds=1)
    assert message in str(caught.value)


def test_parameters_without_values_are_named_before_any_check() -> None:
    class NeverInitialized(CompleteMueRouter):
        def __init__(self, d_model: int, n_experts: int, top_k: int) -> None:
            super().__init__(d_model, n_experts, top_k)
            self.weight = torch.nn.Parameter(torch.empty(n_experts, d_model))

    with pytest.raises(ClaimError, match=r"leaves 1 parameters without finite values: weight \(test_runner.py:\d+\)"):
        check_router(NeverInitialized, only=FEW, seeds=1)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("RaisesAtOddSizes", "raises RuntimeError: n_experts=12 must be a power of 2"),
        ("NotANumber", "weights are not finite"),
        ("Doubles", "the weights are torch.float64 for float32 tokens"),
        ("WrongDevice", "it returns tensors on meta, the tokens are on cpu"),
    ],
)
def test_a_misbehaving_candidate_fails_with_its_own_error(factory: str, message: str) -> None:
    results = check_router(getattr(misbehaving, factory), only=FEW, seeds=1)
    assert {r.check for r in results} == set(FEW), "the others still run"
    assert message in results[0].measured
    assert verdict_of(results, "claim") == Verdict.FAIL


def test_a_line_stays_a_line() -> None:
    class Clears(CompleteMueRouter):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            if self.n_experts == 12:
                raise ClaimError("no\n\x1b[2Jyes")
            return super().forward(x)

    (result,) = check_router(Clears, only=["runs"], seeds=1)
    assert (result.outcome, result.measured) == ("error", r"no\n\x1b[2Jyes")


@pytest.mark.usefixtures("in_process")
def test_a_reason_that_several_checks_share_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    checks = [f"--check={check}" for check in ("runs", "weight-sum", "load", "ties")]
    assert main(["router", f"{MODULE}:RaisesAtOddSizes", "--seeds=1", *checks]) == 1
    out = capsys.readouterr().out.split("\n\n")[0]
    assert out.count("must be a power of 2") == 1
    assert "ERROR as runs: weight-sum, load, ties" in out


@pytest.mark.parametrize("factory", ["Sleeps", "Spins"])
def test_a_candidate_that_hangs_is_stopped(factory: str) -> None:
    start = time.perf_counter()
    with pytest.raises(ClaimError, match=r"the forward pass gives no answer within 0.5 s"):
        check_router(getattr(misbehaving, factory), only=FEW, seeds=1, time_limit=0.5)
    assert time.perf_counter() - start < 10


def test_a_candidate_that_hangs_in_training_is_stopped() -> None:
    class Waits(CompleteMueRouter):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            while self.training:
                time.sleep(1)
            return super().forward(x)

    results = check_router(Waits, only=["input-mutation", "train-eval"], seeds=1, time_limit=0.5)
    assert [r.measured for r in results] == ["no answer within 0.5 s"] * 2


def test_only_the_check_of_the_bug_fails() -> None:
    (result,) = check_router(misbehaving.MutatesInput, only=["input-mutation"])
    assert result.outcome == "failed"
    assert "evaluation mode" in result.measured
    (quiet, state) = check_router(misbehaving.Prints, only=["quiet", "global-state"])
    assert (quiet.outcome, state.outcome) == ("failed", "passed")
    assert quiet.warning, "printing is a should"


def test_there_are_no_side_effects(capfd: pytest.CaptureFixture[str]) -> None:
    class Loud(CompleteMueRouter):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            print("here")
            warnings.warn("there", stacklevel=1)
            torch.manual_seed(0)
            random.seed(0)
            return super().forward(x)

    torch.manual_seed(3)
    random.seed(3)
    states = torch.random.get_rng_state(), random.getstate()
    check_router(Loud, seeds=1)
    assert capfd.readouterr() == ("", "")
    assert torch.equal(states[0], torch.random.get_rng_state())
    assert states[1] == random.getstate()


def test_results_do_not_depend_on_what_ran_before() -> None:
    first = [(r.check, r.outcome, r.measured) for r in check_router(CompleteMueRouter, seeds=1)]
    torch.manual_seed(99)
    again = [(r.check, r.outcome, r.measured) for r in check_router(CompleteMueRouter, seeds=1)]
    assert first == again


def test_the_command_line_on_a_right_router_and_on_a_broken_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, junit = tmp_path / "out.json", tmp_path / "out.xml"
    assert main(["router", "builtin:sigmoid_norm", "--seeds=1", "--json", str(out), "--junit", str(junit)]) == 0
    printed = capsys.readouterr().out
    assert "matches its own claim: PASS" in printed
    assert "fit for Complete-muE: PASS (the sum is 1 for every E and a: fits with R = a)" in printed
    told = json.loads(out.read_text())
    assert told["verdicts"] == {"claim": "PASS", "fit": "PASS"}
    suite = ElementTree.parse(junit).getroot()
    assert int(suite.get("tests", 0)) == len(told["results"]) == len(suite.findall("testcase"))
    assert suite.get("failures") == suite.get("errors") == "0"

    broken = "mue_check.mutants.routing.selection:UnnormalizedSigmoid"
    assert main(["router", broken, "--check", "weight-sum", "--check", "runs"]) == 1
    printed = capsys.readouterr().out
    for part in ("law:", "measured: sums", "worst:    token", "(pytorch/torchtitan #1448; row 3)", "d=24 f=16 E=8"):
        assert part in printed
    rerun = next(line for line in printed.splitlines() if "rerun:" in line)
    assert rerun.split("rerun:")[1].strip() == f"mue_check router {broken} --check weight-sum"


@pytest.mark.usefixtures("in_process")
def test_the_readme_shows_what_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split("mue_check router docs/examples/my_router.py:Router\n")[1].split("```")[0]
    lines = [line for line in shown.splitlines() if line.strip() and line.strip() != "..."]
    assert len(lines) > 15
    assert main(["router", "docs/examples/my_router.py:Router"]) == 1
    assert set(lines) <= set(capsys.readouterr().out.splitlines())


def test_a_candidate_that_ends_its_process_at_once_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["router", f"{MODULE}:ExitsAtOnce", "--json", "-"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "ends its process (exit code 0) in its factory or its first forward pass" in err


def test_a_candidate_that_ends_its_process_later_does_not_affect_other_checks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "import os\nfrom mue_check.mutants.routing.gates import CompleteMueRouter\nclass Ends(CompleteMueRouter):\n"
    text += "    def forward(self, x):\n        return os._exit(0) if self.training else super().forward(x)\n"
    (tmp_path / "ends.py").write_text(text)
    checks = [f"--check={check}" for check in ("runs", "train-eval", "input-mutation")]
    assert main(["router", f"{tmp_path / 'ends.py'}:Ends", *checks, "--json", "-"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [r["outcome"] for r in told["results"]] == ["passed", "error", "error"]
    assert "ends its process (exit code 0)" in told["results"][1]["measured"]


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no_such_module:factory"], "cannot import 'no_such_module'"),
        (["builtin:best"], "unknown router 'best'"),
        (["builtin:sigmoid_norm", "--claim", "absent.toml"], "cannot be read: No such file"),
        (["builtin:sigmoid_norm", "--check", "sum"], "unknown check of a router 'sum': allowed are runs"),
        (["builtin:sigmoid_norm", "--only", "fit", "--check", "runs"], "none of the checks asked for"),
        (["builtin:sigmoid_norm", "--shapes", "32x8"], "write d_model x d_expert x experts x top_k"),
        (["builtin:sigmoid_norm", "--shapes", "32x8x4x5"], "top_k at most the experts"),
        (["builtin:sigmoid_norm", "--seeds", "0"], "--seeds 0: must be at least 1"),
        (["builtin:sigmoid_norm", "--time-limit", "0"], "--time-limit 0"),
        (["builtin:sigmoid_norm", "--expected", "absent.toml"], "cannot be read"),
        (["builtin:sigmoid_norm", "--device", "tpu"], "--device tpu"),
        ([f"{MODULE}:Raises"], "misbehaving:Raises: the forward pass raises RuntimeError: router was not initialised"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["router", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert says in err


@pytest.mark.usefixtures("in_process")
def test_expected_failures_are_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "expected.toml"
    broken = "mue_check.mutants.routing.selection:UnnormalizedSigmoid"

    def exit_of(text: str, *checks: str) -> int:
        file.write_text(text)
        return main(
            ["router", broken, "--seeds=1", "--only=claim", "--expected", str(file), *(f"--check={c}" for c in checks)]
        )

    by_design = 'weight-sum = "a sum by design"\ngate = "the same"\n'
    assert exit_of(by_design, "weight-sum", "gate", "runs") == 0
    assert "[expected: a sum by design]" in capsys.readouterr().out
    assert exit_of(by_design, "weight-sum", "gate") == 3  # no check passed
    said = "INCONCLUSIVE (nothing was checked: 0 of 2 checks pass, 0 do not apply, 2 were expected to fail)"
    assert said in capsys.readouterr().out
    assert exit_of('runs = "it never did"\n', "runs") == 1
    assert "its failure was expected" in capsys.readouterr().out
    assert exit_of('load = "not asked here"\n', "runs") == 1
    assert "expected failure 'load' matches no check that ran" in capsys.readouterr().err
    assert exit_of('weight-summ = "a typo"\n') == 2
    assert exit_of("weight-sum = 3\n") == 2
    with pytest.raises(ClaimError, match="match no check that ran: load"):
        check_router(CompleteMueRouter, only=["runs"], expected={"load": "not asked"})


@pytest.mark.usefixtures("in_process")
def test_a_check_that_does_not_apply_is_no_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["router", "builtin:sigmoid_norm", "--seeds=1", "--check=capacity"]) == 3
    said = "matches its own claim: INCONCLUSIVE (nothing was checked: 0 of 1 checks pass, 1 do not apply)"
    assert said in capsys.readouterr().out


def test_the_decorator_gives_each_check_to_a_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import mue_check
        from mue_check.mutants.routing.selection import UnnormalizedSigmoid
        from mue_check.mutants.routing.gates import CompleteMueRouter

        FEW = ["runs", "weight-sum", "group-limit"]
        EXPECTED = {"weight-sum": "known", "runs": "no"}

        @mue_check.parametrize_with_checks([CompleteMueRouter], only=FEW)
        def test_right(check):
            check()

        @mue_check.parametrize_with_checks([UnnormalizedSigmoid], only=FEW)
        def test_broken(check):
            check()

        @mue_check.parametrize_with_checks([UnnormalizedSigmoid], only=FEW, expected=EXPECTED)
        def test_expected(check):
            check()
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    # runs passes although its failure was expected: strict
    result.assert_outcomes(passed=3, failed=2, skipped=3, xfailed=1)
    result.stdout.fnmatch_lines(["*measured: sums*", "*XPASS(strict)*"])
