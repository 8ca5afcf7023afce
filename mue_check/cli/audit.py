"""``mue_check audit``: check a real model and its optimizer against what a rule prescribes."""

import sys
import tomllib
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from mue_check.cli.command import EXIT_FAIL, EXIT_INCONCLUSIVE, EXIT_OK, Commands, Options, Parser
from mue_check.cli.rules import SPEC_HELP, add_base_values, base_values
from mue_check.errors import SpecError
from mue_check.rules import RULES


def add(commands: "Commands[Parser]") -> None:
    """Declare the command."""
    audit = commands.add_parser(
        "audit",
        help="your model and optimizer: does every parameter get what the rule prescribes?",
        description="Build your model and its optimizer, take an optimizer and a scheduler step, and compare every "
        "parameter's role, init std, learning rate, weight decay, eps and betas with what the rule prescribes. FACTORY "
        "returns (model, optimizer), (model, optimizer, scheduler) or (model, optimizer, scheduler, loss), where "
        "loss() returns a scalar. Exit 0: as prescribed, 1: not, 2: bad arguments, 3: could not be judged.",
        epilog="example: mue_check audit train:build --reference d=256,L=4,H=256,dh=64,B=65536,T=10000 "
        "--target B=65536,T=40000 --lr 3e-3 --init-std 0.02",
    )
    audit.add_argument("factory", metavar="FACTORY", help="module:function, or path/to/file.py:function")
    audit.add_argument("--reference", required=True, metavar="SPEC", help=f"the tuned model: {SPEC_HELP}")
    audit.add_argument(
        "--target",
        metavar="SPEC",
        help="your model; defaults come from model.config, else from the reference (without it: model.config)",
    )
    audit.add_argument("--rule", default="complete_mue", help=f"one of {', '.join(RULES)} (default: complete_mue)")
    add_base_values(audit)
    audit.add_argument(
        "--roles",
        metavar="FILE.toml",
        type=Path,
        help="[roles]: name pattern = role, for unknown names; [multipliers]: role = number, the factors by which the "
        "model multiplies",
    )
    audit.add_argument("--no-probe", action="store_true", help="do not run a forward pass on random tokens")
    audit.add_argument("--json", metavar="OUT", help="write everything as JSON; - prints it instead of the text")
    audit.add_argument("--quiet", action="store_true", help="print only the verdict")
    audit.set_defaults(run=run)


def run(options: Options) -> int:
    """Build, measure, judge and print."""
    from mue_check.audit import audit_model
    from mue_check.audit.setup import call_factory, load_factory
    from mue_check.judge.verdict import Verdict
    from mue_check.records.files import write_atomic

    declared = _read(options.roles) if options.roles else {}
    # keep what the user's code prints out of the report
    with redirect_stdout(sys.stderr):
        setup = call_factory(load_factory(options.factory), options.factory)
        report = audit_model(
            setup.model,
            setup.optimizers,
            setup.schedulers,
            reference=options.reference,
            target=options.target,
            rule=options.rule,
            base=base_values(options),
            roles=declared.get("roles"),
            multipliers=declared.get("multipliers"),
            loss=setup.loss,
            probe=not options.no_probe,
        )
    if options.json and options.json != "-":
        write_atomic(Path(options.json), report.to_json().encode())
    if options.json == "-":
        print(report.to_json())
    elif options.quiet:
        print(str(report).rpartition("\n")[2])
    else:
        print(report)
    return {Verdict.PASS: EXIT_OK, Verdict.FAIL: EXIT_FAIL}.get(report.verdict, EXIT_INCONCLUSIVE)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"--roles {path}: cannot be read: {error}") from None
    unknown = set(table) - {"roles", "multipliers"}
    if unknown or not all(isinstance(part, dict) for part in table.values()):
        found = f", not {', '.join(sorted(unknown))}" if unknown else ""
        raise SpecError(f"--roles {path}: must hold tables [roles] and [multipliers]{found}")
    return table
