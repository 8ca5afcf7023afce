"""``mue_check audit``: check a real model and its optimizer against what a rule prescribes."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mue_check.cli.command import A_DAY, Commands, Options, Parser, print_answer, require_between
from mue_check.cli.rule_options import ROLES_HELP, SPEC_HELP, add_rule_options, base_values, read_roles
from mue_check.errors import SpecError
from mue_check.rules import get_rule
from mue_check.spec_text import parse_scenario

if TYPE_CHECKING:
    from mue_check.judge.verdict import Verdict


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
        "--target B=65536,T=40000 --lr 3e-3 --init-std 0.02. The same values in Python: p = mue_check.get_rule("
        "'complete_mue').prescribe(mue_check.parse_scenario(SPEC), mue_check.scenario_of(model)), then "
        "mue_check.param_groups(model, p, mue_check.HyperParameters(lr=3e-3)).",
    )
    audit.add_argument("factory", metavar="FACTORY", help="module:function, path/to/file.py:function, or hf:CONFIG")
    audit.add_argument("--reference", required=True, metavar="SPEC", help=f"the tuned model: {SPEC_HELP}")
    audit.add_argument(
        "--target",
        metavar="SPEC",
        help="your model; defaults come from model.config, else from the reference (without it: model.config)",
    )
    add_rule_options(audit)
    audit.add_argument("--roles", metavar="FILE.toml", type=Path, help=ROLES_HELP)
    audit.add_argument("--no-probe", action="store_true", help="do not run a forward pass on random tokens")
    audit.add_argument(
        "--time-limit",
        type=float,
        default=600.0,
        metavar="S",
        help="seconds to build it, and again to audit it (default: 600)",
    )
    audit.add_argument("--json", metavar="OUT", help="write everything as JSON; - prints it instead of the text")
    audit.add_argument("--quiet", action="store_true", help="print only the verdict")
    audit.set_defaults(run=run)


def run(options: Options) -> int:
    """Build, measure and judge in a child process, and print."""
    from mue_check.isolation import ChildError, isolated

    declared = read_roles(options.roles)
    require_between("--time-limit", options.time_limit, 0, A_DAY, above=True)
    get_rule(options.rule)
    parse_scenario(options.reference, head_width=1)
    judging = {
        "reference": options.reference,
        "target": options.target,
        "rule": options.rule,
        "base": base_values(options),
        "roles": declared.get("roles"),
        "multipliers": declared.get("multipliers"),
        "probe": not options.no_probe,
    }
    try:
        with isolated(_SetUp, options.factory, judging, limit=options.time_limit, doing=" while it is built") as child:
            audited = child.call("audit", limit=options.time_limit, doing=" while it is audited")
    except ChildError as error:
        raise SpecError(f"factory {options.factory!r} {error}") from None
    sys.stderr.write(child.printed())
    verdict, text, json = audited
    return print_answer(verdict, text.rpartition("\n")[2] if options.quiet else text, json, options.json)


class _SetUp:
    """The user's set-up in the child, or that of a mixture of transformers with what is prescribed."""

    def __init__(self, factory: str, judging: dict[str, Any]) -> None:
        from mue_check.audit.hugging_face import prescribed_set_up
        from mue_check.audit.setup import call_factory, load_factory

        self.judging = judging
        if factory.startswith("hf:"):
            self.setup, self.judging = prescribed_set_up(factory, **judging)
        else:
            self.setup = call_factory(load_factory(factory), factory)

    def audit(self) -> "tuple[Verdict, str, str]":
        """The verdict, and the report as text and as JSON."""
        from mue_check.audit import audit_model

        s = self.setup
        report = audit_model(s.model, s.optimizers, s.schedulers, loss=s.loss, **self.judging)
        return report.verdict, str(report), report.to_json()
