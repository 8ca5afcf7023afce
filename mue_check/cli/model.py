"""``mue_check model``: does your own model scale as a transfer rule needs?"""

import os
import shlex
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mue_check.cli.command import A_DAY, MOST_WORKERS, Commands, Options, Parser, print_answer, require_between
from mue_check.cli.rule_options import SPEC_HELP, add_rule_options, base_values
from mue_check.errors import SpecError
from mue_check.input_files import read_toml
from mue_check.rules import get_rule
from mue_check.spec_text import parse_scenario

if TYPE_CHECKING:
    from mue_check.judge.verdict import Verdict
    from mue_check.own_model import Study


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
    model.add_argument("--axis", default="width", help="argument of model(...) that varies (default: width)")
    model.add_argument("--sizes", metavar="A,B,..", help="sizes, ascending (default: those of mup's table)")
    model.add_argument(
        "--base", type=float, metavar="SIZE", help="size at which all factors are 1 (default: the first; 0: none)"
    )
    model.add_argument("--roles", type=Path, metavar="FILE.toml", help="table [roles] of name pattern = role, in order")
    model.add_argument(
        "--tolerance",
        type=float,
        default=0.25,
        metavar="X",
        help="largest harmless error of an exponent (default: 0.25)",
    )
    model.add_argument(
        "--seeds", default="2:8", metavar="LOW[:HIGH]", help="seeds, added until no row is open (default: 2:8)"
    )
    model.add_argument(
        "--reference", metavar="SPEC", help=f"audit each size too, against this tuned model: {SPEC_HELP}"
    )
    add_rule_options(model, "rule of the audit: ")
    model.add_argument(
        "--time-limit",
        type=float,
        metavar="S",
        help="time limit for everything, in seconds (default: 3600, with --study a day)",
    )
    model.add_argument("--figure", metavar="OUT", help="draw the result as OUT.svg, .png or .pdf")
    model.add_argument("--json", metavar="OUT", help="write everything as JSON; - prints it instead of the text")
    model.add_argument("--all", action="store_true", help="also print rows that pass")
    _add_study(model)
    model.set_defaults(run=run)


def _add_study(model: Parser) -> None:
    study = model.add_argument_group(
        "study",
        "whether values tuned at the first size stay best: early curve, tune once, drift of the optimum",
    )
    study.add_argument("--study", type=Path, metavar="DIR", help="folder for all runs; stored runs are not run again")
    study.add_argument("--steps", type=int, metavar="N", help="updates of each run (required with --study)")
    study.add_argument(
        "--ask",
        default="early,tune_once,drift",
        metavar="A,B",
        help="questions to ask (default: early,tune_once,drift)",
    )
    study.add_argument(
        "--study-seeds",
        default="4:12",
        metavar="LOW:HIGH",
        help="seeds of a question, added until it is settled (default: 4:12)",
    )
    study.add_argument(
        "--drift-tolerance",
        type=float,
        default=0.5,
        metavar="X",
        help="largest harmless drift, in octaves of the learning rate (default: 0.5)",
    )
    study.add_argument(
        "--held-out", type=int, default=8, metavar="K", help="batches in the final loss, not trained on (default: 8)"
    )  # fmt: skip
    where = study.add_mutually_exclusive_group()
    where.add_argument(
        "--processes", type=int, default=1, metavar="N", help="number of processes that share the runs (default: 1)"
    )
    where.add_argument("--gpus", type=int, metavar="N", help="start one process for each of N GPUs")
    where.add_argument("--cluster", default="", metavar="HOST:PORT|local", help="train the runs on this Ray cluster")
    study.add_argument(
        "--gpu-share",
        type=float,
        default=1.0,
        metavar="F",
        help="share of a GPU for each run on a cluster (default: 1)",
    )


def run(options: Options) -> int:
    """Measure and judge in a child process, and print."""
    from mue_check.isolation import ChildError

    limit = options.time_limit or (A_DAY if options.study else 3600.0)
    require_between("--time-limit", limit, 0, A_DAY, above=True)
    require_between("--tolerance", options.tolerance, 0, 1, above=True)
    form = Path(options.figure).suffix[1:].lower() if options.figure else ""
    alone = [name for name in ("steps", "gpus", "cluster") if getattr(options, name) and not options.study]
    if alone:
        raise SpecError(f"--{alone[0]}: goes with --study")
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
        "seeds": _looks(options.seeds),
        "reference": options.reference,
        "rule": options.rule,
        "values": base_values(options),
    }
    study = _study(options) if options.study else None
    try:
        answer, printed = _in_children(options, (options.model, asked, study, options.all, form), limit)
    except ChildError as error:
        raise SpecError(f"{options.model!r} {error}") from None
    verdict, text, json, figure = answer
    sys.stderr.write(printed)
    if options.figure:
        Path(options.figure).write_bytes(figure)
    code = print_answer(verdict, text, json, options.json)
    if options.study:
        from mue_check.catalog import write_report

        print(f"report: {write_report(options.study)}", file=sys.stderr if options.json == "-" else sys.stdout)
    return code


def _study(options: Options) -> dict[str, Any]:
    if options.steps is None:
        raise SpecError("--study: give --steps, the length of a run")
    low, *high = _numbers("--study-seeds", options.study_seeds, ":")
    words = ["mue_check", "model", options.model, "--axis", options.axis, "--study", str(options.study)]
    words += ["--sizes", options.sizes] if options.sizes else []
    return {
        "root": options.study.resolve(),
        "plan": {"steps": options.steps, "held_out": options.held_out},
        "lr": options.lr,
        "ask": tuple(name.strip() for name in options.ask.split(",")),
        "seeds": (low, *high) if high else (low, low),
        "tolerance": options.drift_tolerance,
        "cluster": options.cluster,
        "gpu_share": options.gpu_share,
        "command": shlex.join([*words, "--steps", str(options.steps), "--lr", f"{options.lr:g}"]),
    }


def _in_children(options: Options, check: tuple[Any, ...], limit: float) -> tuple[Any, str]:
    """What the first child answers, and prints; others ask the same study, so that they share its runs."""
    from mue_check.isolation import isolated

    places: list[dict[str, str]] = [{}] * options.processes
    if options.gpus is not None:
        from mue_check.suite.gpus import shares

        places = shares(options.gpus)
    require_between("--processes", len(places), 1, MOST_WORKERS)
    doing = " while it is checked"
    with ExitStack() as ending:
        children = [ending.enter_context(isolated(_Checked, place, limit=limit)) for place in places]
        helping = ThreadPoolExecutor(max(1, len(children) - 1))
        ending.callback(helping.shutdown)
        for child in children:
            ending.callback(child.kill)  # a helper must not outlive an error
        if check[2] is not None:
            for child in children[1:]:
                helping.submit(child.call, "help", *check[:3], limit=limit, doing=doing)
        answer = children[0].call("check", *check, limit=limit, doing=doing)
    return answer, children[0].printed()


class _Checked:
    """The check in a child."""

    def __init__(self, environment: dict[str, str]) -> None:
        os.environ.update(environment)  # before torch looks for GPUs

    def check(
        self, name: str, asked: dict[str, Any], study: dict[str, Any] | None, every: bool, figure: str
    ) -> "tuple[Verdict, str, str, bytes]":
        """The verdict; the report as text and as JSON; the figure in a format, if there is one."""
        from mue_check.own_model import check_model

        report = check_model(name, **asked, study=_study_of(study) if study else None)
        return report.verdict, report.text(every=every), report.to_json(), _drawn(report, figure) if figure else b""

    def help(self, name: str, asked: dict[str, Any], study: dict[str, Any]) -> None:
        """Train runs of the study until all its questions are answered."""
        from mue_check.own_model.api import measure_study

        given = {key: asked[key] for key in ("base", "rule", "values")}
        measure_study(name, asked["axis"], asked["sizes"], _study_of(study), **given)


def _study_of(given: dict[str, Any]) -> "Study":
    from mue_check.own_model import Plan, Study

    return Study(**{**given, "plan": Plan(**given["plan"])})


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


def _looks(text: str) -> tuple[int, ...]:
    """All numbers of seeds from LOW to HIGH."""
    given = _numbers("--seeds", text, ":")
    require_between("--seeds", given[-1], 2, 1000)
    return tuple(range(given[0], given[-1] + 1))


def _roles(path: Path) -> dict[str, str]:
    table = read_toml(path, f"--roles {path}", SpecError)
    roles = table.get("roles")
    if set(table) != {"roles"} or not isinstance(roles, dict) or not all(isinstance(r, str) for r in roles.values()):
        raise SpecError(f"--roles {path}: must hold one table [roles] of pattern = role")
    return roles
