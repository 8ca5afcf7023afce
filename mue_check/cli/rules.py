"""``mue_check rules``: print the hyperparameters that a transfer rule prescribes for a target model."""

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from mue_check.cli.command import EXIT_OK, Commands, Options, Parser
from mue_check.cli.rule_options import ROLES_HELP, SPEC_HELP, add_rule_options, base_values, read_roles
from mue_check.rules import HyperParameters, Prescription, Row, about_expansion, get_rule
from mue_check.spec_text import parse_scenario
from mue_check.terminal import text_table

_CODE = ("torch", "transformers", "mup", "megatron", "torchtitan")


def add(commands: "Commands[Parser]") -> None:
    """Declare the command."""
    rules = commands.add_parser(
        "rules",
        help="print the hyperparameters prescribed for a target model",
        description="Print what a transfer rule prescribes for a target, one row per role, or as code.",
        epilog="example: mue_check rules --reference d=128,L=32,H=128,B=65536,T=25000 "
        "--target d=1024,128e8a1s,h=1024,T=100000 --format torch > transfer.py",
    )
    rules.add_argument("--reference", required=True, metavar="SPEC", help=f"the tuned model: {SPEC_HELP}")
    rules.add_argument(
        "--target",
        required=True,
        metavar="SPEC",
        help="the target model, as above; missing keys are taken from the reference",
    )
    add_rule_options(rules)
    rules.add_argument(
        "--format",
        choices=["table", "json", "csv", *_CODE],
        default="table",
        help="a table (default), data, or Python with the groups for this library, which says what it cannot express",
    )
    rules.add_argument("--roles", metavar="FILE.toml", type=Path, help=f"for code: {ROLES_HELP}")
    rules.add_argument("--base-shapes", metavar="FILE.bsh", default="", help="for --format mup: your own base shapes")
    rules.set_defaults(run=run)


def run(options: Options) -> int:
    """Print the prescription."""
    base = base_values(options)
    reference = parse_scenario(options.reference)
    target = parse_scenario(options.target, default=reference)
    prescription = get_rule(options.rule).prescribe(reference, target)
    if options.format in _CODE:
        from mue_check.bridges import Sheet, render

        sheet = Sheet.of(prescription, base, **read_roles(options.roles), base_shapes=options.base_shapes)
        print(render(options.format, sheet), end="")
        return EXIT_OK
    rows = prescription.values(base)
    if options.format == "json":
        print(json.dumps([asdict(row) for row in rows], indent=1))
    elif options.format == "csv":
        writer = csv.DictWriter(sys.stdout, [f.name for f in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    else:
        print("\n".join(_text(prescription, rows, base)))
    return EXIT_OK


def _text(prescription: Prescription, rows: Sequence[Row], base: HyperParameters) -> list[str]:
    names = [f.name for f in fields(Row)]
    cells = [[v if isinstance(v, str) else f"{v:.4g}" for v in asdict(row).values()] for row in rows]
    note = about_expansion(prescription)
    return [
        f"rule       {prescription.rule}",
        f"reference  {prescription.reference}",
        f"target     {prescription.target}",
        f"base       lr={base.lr:g} wd={base.weight_decay:g} init_std={base.init_std:g} "
        f"eps={base.eps:g} beta1={base.beta1:g} beta2={base.beta2:g}",
        "",
        *text_table(names, cells, numeric=range(1, len(names))),
        "",
        "forward_multiplier scales the output of the role's matrix. For down-projections it is A (and 1/m_L). For the",
        "router it is R, which scales only the normalized routed sum. For the unembedding it scales the logits.",
        *([note] if note else []),
    ]
