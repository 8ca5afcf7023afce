"""``mue_check --print-completion SHELL``: completion of commands and options, which shtab writes."""

import sys
from collections.abc import Sequence
from importlib import import_module

from mue_check.cli.command import EXIT_OK, Parser

COMPLETION = "--print-completion"
_WHERE = {
    "bash": "~/.local/share/bash-completion/completions/mue_check",
    "zsh": "a folder of $fpath, as _mue_check",
    "tcsh": "a file that ~/.tcshrc sources",
}


def print_completion(parser: Parser, shells: Sequence[str]) -> int:
    """Print the script for one shell; on standard error, where it belongs."""
    if len(shells) != 1 or shells[0] not in _WHERE:
        parser.error(f"{COMPLETION}: give one of {', '.join(_WHERE)}")
    try:
        shtab = import_module("shtab")
    except ImportError:
        parser.error(f"{COMPLETION}: needs shtab: pip install 'mue_check[completion]'")
    print(shtab.complete(parser, shells[0]))
    print(f"save this as {_WHERE[shells[0]]}", file=sys.stderr)
    return EXIT_OK
