"""``mue_check model``: does your own model scale as a transfer rule needs?"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mue_check.cli.command import (
    A_DAY,
    Commands,
    Options,
    Parser,
    print_answer,
    require_between,
)
from mue_check.cli.rules import SPEC_HELP, add_base_values, base_values
from mue_check.errors import SpecError
from mue_check.input_files import read_toml
from mue_check.rules import RULES, get_rule
from mue_check.spec import parse_scenario

if TYPE_CHECKING:
    from mue_check.judge.verdict import Verdict


def add(commands: "Commands[Parser]") -> None:
    """Declare the command."""
    model = commands.add_parser(
        "model",
        help="your own model and optimizer: do outputs and updates scale with size?",
        description="Build your model at several sizes, train it for a step, and compare how every module's output and "
        "every parameter scale with what a transfer rule needs. OBJECT, or the module itself, has model(**size), "
        "optimizer(model, lr=...), loss(model, batch) and batches(seed). Exit 0: as it should be, 1: not, 2: bad "
        "arguments, 3: open.",
        epilog="example: mue_check model train.py --axis width --sizes 64,128,256",
    )
    model.add_argument(
        "model", metavar="MODULE[:OBJECT]", help="or FILE.py[:OBJECT]; OBJECT may be mup's {size: model}"
    )
    model.add_argument("--axis", default="width", help="the argument of model(...) that varies (default: width)")
    model.add_argument("--sizes", metavar="A,B,..", help="ascending (default: those of mup's table)")
    model.add_argument(
        "--base", type=float, metavar="SIZE", help="where all factors are 1 (default: the first; 0: none)"
    )
    model.add_argument("--roles", type=Path, metavar="FILE.toml", help="[roles]: name pattern = role, in order")
    model.add_argument("--tolerance", type=float, default=0.25, metavar="X", help="of an exponent (default: 0.25)")
    model.add_argument(
        "--seeds", default="4:8", metavar="LOW[:HIGH]", help="HIGH where LOW leaves it open (default: 4:8)"
    )
    model.add_argument(
        "--reference", metavar="SPEC", help=f"audit each size too, against this tuned model: {SPEC_HELP}"
    )
    model.add_argument(
        "--rule", default="complete_mue", help=f"of the audit: {', '.join(RULES)} (default: complete_mue)"
    )
    add_base_values(model)
    model.add_argument("--time-limit", type=float, default=3600.0, metavar="S", help="seconds in all (default: 3600)")
    model.add_argument("--figure", metavar="OUT", help="draw it, as OUT.svg, .png or .pdf")
    model.add_argument("--json", metavar="OUT", help="write everything as JSON; - prints it instead of the text")
    model.add_argument("--all", action="store_true", help="print rows that pass, too")
    model.set_defaults(run=run)


def run(options: Options) -> int:
    """Measure and judge in a child process, and print."""
    from mue_check.isolation import ChildError, isolated

    require_between("--time-limit", options.time_limit, 0, A_DAY, above=True)
    require_between("--tolerance", options.tolerance, 0, 1, above=True)
    form = Path(options.figure).suffix[1:].lower() if options.figure else ""
    if options.figure and form not in ("svg", "png", "pdf"):
        raise SpecError(f"--figure {options.figure}: the name must end in .svg, .png or .pdf")
    get_rule(options.rule)
    if options.reference:
        parse_scenario(options.reference, head_width=1)
    asked = {
        "axis": options.axis,
        "sizes": _numbers("--sizes", options.sizes, ",") if options.sizes else (),
        "lr": options.lr,
        "roles": _roles(options.roles) if options.roles else None,
        "base": options.base,
        "tolerance": options.tolerance,
        "seeds": tuple(sorted(set(_numbers("--seeds", options.seeds, ":")))),
        "reference": options.reference,
        "rule": options.rule,
        "values": base_values(options),
    }
    try:
        with isolated(_Checked, limit=options.time_limit) as child:
            answer = child.call(
                "check", options.model, asked, options.all, form, limit=options.time_limit, doing=" while it is checked"
            )
    except ChildError as error:
        raise SpecError(f"{options.model!r} {error}") from None
    verdict, text, json, figure = answer
    sys.stderr.write(child.printed())
    if options.figure:
        Path(options.figure).write_bytes(figure)
    return print_answer(verdict, text, json, options.json)


class _Checked:
    """The check in the child."""

    def check(self, name: str, asked: dict[str, Any], every: bool, figure: str) -> "tuple[Verdict, str, str, bytes]":
        """The verdict; the report as text and as JSON; the figure in a format, if there is one."""
        from mue_check.own_model import check_model

        report = check_model(name, **asked)
        return report.verdict, report.text(every=every), report.to_json(), _drawn(report, figure) if figure else b""


def _drawn(report: Any, form: str) -> bytes:
    import io

    from mue_check.own_model.figure import plot_report
    from mue_check.report.palette import house_style

    drawn = io.BytesIO()
    with house_style():
        plot_report(report).savefig(drawn, format=form)
    return drawn.getvalue()


def _numbers(flag: str, text: str, separator: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(separator))
    except ValueError:
        raise SpecError(f"{flag} {text!r}: must be whole numbers, such as 64{separator}128") from None


def _roles(path: Path) -> dict[str, str]:
    table = read_toml(path, f"--roles {path}", SpecError)
    roles = table.get("roles")
    if set(table) != {"roles"} or not isinstance(roles, dict) or not all(isinstance(r, str) for r in roles.values()):
        raise SpecError(f"--roles {path}: must hold one table [roles] of pattern = role")
    return roles
