"""``mue_check router`` and ``mue_check block``: is it what it claims to be, and will tuned values carry over to it?"""

import re
import sys
from pathlib import Path

from mue_check.cli.command import (
    A_DAY,
    EXIT_FAIL,
    EXIT_INCONCLUSIVE,
    EXIT_OK,
    Commands,
    Options,
    Parser,
    require_between,
    write_output,
)
from mue_check.errors import ClaimError

_SIGNATURES = {
    "router": "factory(d_model, n_experts, top_k) -> nn.Module, called with x [tokens, d_model]",
    "block": "factory(d_model, d_expert, n_experts, top_k) -> nn.Module, y = block(x) with x [batch, time, d_model]",
}


def add(commands: "Commands[Parser]") -> None:
    """Declare both commands."""
    for kind, signature in _SIGNATURES.items():
        command = commands.add_parser(
            kind,
            help=f"validate your own {kind} in seconds",
            description=f"Check a {kind}: {signature}. Two verdicts: it matches its own claim; it is fit for "
            "Complete-muE. Exit 0 when both pass, 1 when one fails, 2 on bad arguments, 3 when one is inconclusive: a "
            "check is open, or none passed.",
            epilog=f"example: mue_check {kind} mymodel.moe:make_{kind} --claim {kind}.toml",
        )
        command.add_argument("candidate", metavar="MODULE:FACTORY", help="or FILE.py:FACTORY, builtin:NAME, hf:CONFIG")
        command.add_argument("--claim", type=Path, metavar="FILE.toml", help="what it claims: fields of RoutingSpec")
        command.add_argument("--only", choices=["claim", "fit"], help="give only this verdict")
        command.add_argument("--check", action="append", metavar="ID", help="run only this check (may be repeated)")
        command.add_argument(
            "--expected", type=Path, metavar="FILE.toml", help='expected failures: check-id = "reason"'
        )
        command.add_argument(
            "--shapes", metavar="DxFxExA,..", help="sizes to check: d_model x d_expert x experts x top_k"
        )
        command.add_argument(
            "--seeds", type=int, default=2, metavar="N", help="weights and tokens per shape (default: 2)"
        )
        command.add_argument("--device", default="auto", help="cpu, cuda or auto (default: cuda where there is one)")
        command.add_argument(
            "--time-limit", type=float, default=20.0, metavar="S", help="seconds per check (default: 20)"
        )
        command.add_argument("--json", metavar="OUT", help="write everything as JSON, - for stdout")
        command.add_argument("--junit", metavar="OUT", help="write JUnit XML")
        command.add_argument("--quiet", action="store_true", help="print only failures and verdicts")
        command.set_defaults(run=run, kind=kind)


def run(options: Options) -> int:
    """Run the checks in a child process, print each result as it comes, and then the verdicts."""
    from mue_check.conformance.isolate import Job, Session, run_isolated
    from mue_check.conformance.output import Lines, as_json, as_junit, explanations, verdict_lines
    from mue_check.conformance.result import QUESTIONS, CheckResult, Question, read_expected, verdict_of, with_expected
    from mue_check.judge.verdict import Verdict
    from mue_check.routing.claim import read_claim

    require_between("--seeds", options.seeds, 1, 1000)
    require_between("--time-limit", options.time_limit, 0, A_DAY, above=True)
    expected = read_expected(options.expected) if options.expected else {}
    job = Job(
        kind=options.kind,
        name=options.candidate,
        claim=read_claim(options.claim) if options.claim else None,
        checks=tuple(options.check or ()),
        question=options.only,
        expected=tuple(expected),
        shapes=_shapes(options.shapes),
        seeds=options.seeds,
        device=options.device,
        time_limit=options.time_limit,
        rerun_flags=_rerun_flags(options),
    )
    speak = not options.quiet and options.json != "-"
    session, results, lines = Session(), list[CheckResult](), Lines()
    for session, result in run_isolated(job):
        if speak and not results:
            print(
                f"{options.kind} {options.candidate} on {session.device}",
                *(f"  {line}" for line in session.head),
                sep="\n",
            )
        results += with_expected([result], expected)[0]
        if speak and (line := lines.of(results[-1])):
            print(line, flush=True)
    if speak:
        print(*lines.rest(), sep="\n", end="\n" if lines.rest() else "")
    _, unmatched = with_expected(results, expected)
    # a question without results has no verdict
    questions: list[Question] = [q for q in QUESTIONS if any(result.question == q for result in results)]
    verdicts = {question: verdict_of(results, question) for question in questions}
    if options.json != "-":
        for explanation in explanations(results):
            print(f"\n{explanation}")
        print("", *verdict_lines(results, verdicts), sep="\n")
    for id in unmatched:
        print(f"expected failure {id!r} matches no check that ran", file=sys.stderr)
    if options.json:
        text = as_json(options.candidate, session, results, verdicts, unmatched)
        write_output(options.json, text + "\n")
    if options.junit:
        write_output(options.junit, as_junit(options.candidate, results))
    if Verdict.FAIL in verdicts.values() or unmatched:
        return EXIT_FAIL
    return EXIT_INCONCLUSIVE if Verdict.INCONCLUSIVE in verdicts.values() else EXIT_OK


def _rerun_flags(options: Options) -> tuple[str, ...]:
    """The flags that change what is measured."""
    out: list[str] = []
    for flag, value, usual in (
        ("--claim", options.claim, None),
        ("--shapes", options.shapes, None),
        ("--seeds", options.seeds, 2),
    ):
        out += [] if value == usual else [flag, str(value)]
    return tuple(out)


def _shapes(text: str | None) -> tuple[tuple[int, ...], ...]:
    """(d, f, experts, activated, tokens) of DxFxExA; tokens as in the first of the usual shapes."""
    out = []
    for part in (text or "").split(",") if text else []:
        if not re.fullmatch(r"\d{1,6}(x\d{1,6}){3}", part.strip(), re.ASCII):
            raise ClaimError(f"--shapes {part!r}: write d_model x d_expert x experts x top_k, such as 64x32x8x2")
        sizes = tuple(int(n) for n in part.split("x"))
        if min(sizes) < 1 or sizes[3] > sizes[2]:
            raise ClaimError(f"--shapes {part}: sizes are at least 1 and top_k at most the experts")
        out.append((*sizes, 50))
    return tuple(out)
