"""Options of the commands that apply a transfer rule: the rule, the tuned values of the reference, and roles."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from mue_check.cli.command import Options, Parser
from mue_check.errors import SpecError
from mue_check.input_files import read_toml
from mue_check.rules import RULES, HyperParameters

ROLES_HELP = (
    "[roles]: name pattern = role, for unknown names; [multipliers]: role = number, the factors by which the model "
    "multiplies"
)
SPEC_HELP = (
    "comma-separated key=value pairs or a TOML file: d, L, H or a notation such as 128e8a1s with h, B, T, dh; also "
    "d_model=1k,B=4M"
)


def add_rule_options(parser: Parser, what: str = "") -> None:
    """Add ``--rule`` and an option for each tuned value of the reference; ``what`` begins the help of ``--rule``."""
    names = ", ".join(RULES)
    parser.add_argument("--rule", default="complete_mue", help=f"{what}one of {names} (default: complete_mue)")
    flags = {"lr": "--lr", "weight_decay": "--wd", "init_std": "--init-std"}
    for f in fields(HyperParameters):
        parser.add_argument(
            flags.get(f.name, f"--{f.name}"),
            dest=f.name,
            type=float,
            default=f.default,
            metavar="X",
            help=f"the reference's tuned {f.name.replace('_', ' ')} (default: {f.default:g})",
        )


def base_values(options: Options) -> HyperParameters:
    """The base values from these options."""
    return HyperParameters(**{f.name: getattr(options, f.name) for f in fields(HyperParameters)})


def read_roles(path: Path | None) -> dict[str, dict[str, Any]]:
    """The tables [roles] and [multipliers] of a file; empty without one. SpecError."""
    if path is None:
        return {}
    table = read_toml(path, f"--roles {path}", SpecError)
    unknown = set(table) - {"roles", "multipliers"}
    if unknown or not all(isinstance(part, dict) for part in table.values()):
        found = f", not {', '.join(sorted(unknown))}" if unknown else ""
        raise SpecError(f"--roles {path}: must hold tables [roles] and [multipliers]{found}")
    return table
