"""The command line, one file per command. Bad arguments are reported in one line with exit code 2."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from mue_check import __version__
from mue_check.cli.command import EXIT_INTERRUPTED, EXIT_UNREAD, EXIT_USAGE, Parser, error_line
from mue_check.cli.completion import COMPLETION, print_completion
from mue_check.errors import MueCheckError
from mue_check.user_code import is_one_line

SUITE = "suite"
"""Its arguments are pytest's."""
COMMANDS = (
    *(SUITE, "examples", "encode", "audit", "conformance", "explain", "model", "judge", "rules", "report", "compare"),
    *("mutants", "families", "budget", "log", "plan", "bench"),
)
"""The modules of the commands, in the order of the help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 not as expected, 2 bad arguments, 3 inconclusive."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser()
    if given[:1] == [COMPLETION]:
        return print_completion(parser, given[1:])
    for argument in given:
        if not is_one_line(argument):
            parser.error(f"{argument!r}: an argument must not contain line breaks or control characters")
    if not given:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    ours, theirs = (given[:1], given[1:]) if given[:1] == [SUITE] else (given, [])
    options = parser.parse_args(ours, argparse.Namespace(theirs=theirs))
    try:
        code: int = options.run(options)
    except MueCheckError as error:
        print(error_line(f"mue_check {options.command}: {error}"), file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:
        sys.stderr.close()  # the reader is gone, and Python would print an error at exit
        return EXIT_UNREAD
    except KeyboardInterrupt:
        print(f"mue_check {options.command}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except OSError as error:
        where = f"{error.filename!r}" if error.filename else "the output"
        print(error_line(f"mue_check {options.command}: {where} cannot be used: {error.strerror}"), file=sys.stderr)
        return EXIT_USAGE
    return code


def _parser() -> Parser:
    parser = Parser(
        prog="mue_check",
        description="Check that a learning rate tuned on a small dense model transfers to your mixture of experts. "
        "The main job is `mue_check suite`, which is `pytest suites/` from any folder.",
    )
    parser.add_argument(COMPLETION, metavar="SHELL", help="print completion for bash, zsh or tcsh, and how to use it")
    parser.add_argument("--version", action="version", version=f"mue_check {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        import_module(f"{__name__}.{command}").add(commands)
    return parser
