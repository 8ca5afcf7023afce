"""What all commands share: exit codes, and a parser that reports usage errors in one line."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from mue_check.errors import SpecError, unknown
from mue_check.user_code import one_line

EXIT_OK, EXIT_FAIL, EXIT_USAGE, EXIT_INCONCLUSIVE = 0, 1, 2, 3
EXIT_INTERRUPTED, EXIT_UNREAD = 130, 141
"""The exit codes of shells for SIGINT and SIGPIPE, so that a command that stopped halfway does not look like a pass."""

Options = argparse.Namespace
Run = Callable[[Options], int]

Commands = argparse._SubParsersAction
"""The type of ``add_subparsers()``, for which argparse has no public name."""

_LONGEST = 1000
MOST_WORKERS = 4096
A_DAY = 86400.0
"""Seconds: the longest limit on time."""


def error_line(text: str) -> str:
    """An error as one line that is not too long."""
    text = one_line(text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 2 :]}"


def require_between(flag: str, value: float, low: float, high: float, *, above: bool = False) -> None:
    """SpecError unless ``value`` lies between ``low`` and ``high``, both included (``above``: without ``low``)."""
    if not (low < value if above else low <= value) or not value <= high:
        text = str(value)
        shown = text if len(text) <= 20 else f"{text[:20]}..."
        raise SpecError(f"{flag} {shown}: must be {'above' if above else 'at least'} {low:g} and at most {high:g}")


def exit_code(verdict: str) -> int:
    """That of a command whose answer is this verdict."""
    return {"PASS": EXIT_OK, "FAIL": EXIT_FAIL}.get(verdict, EXIT_INCONCLUSIVE)


def print_answer(verdict: str, text: str, json: str, out: str | None) -> int:
    """Print the text, write the JSON to ``out``, which replaces the text if it is ``-``, and return the exit code."""
    if out:
        write_output(out, json + "\n" * (out == "-"))
    if out != "-":
        print(text)
    return exit_code(verdict)


def write_output(where: str, text: str) -> None:
    """Write a result to a file, or to the standard output (``-``). A device or a pipe is written to, never replaced."""
    path = Path(where)
    if where == "-":
        sys.stdout.write(text)
    elif path.exists() and not path.is_file() and not path.is_dir():
        path.write_text(text, encoding="utf-8")
    else:
        from mue_check.records.files import write_atomic

        write_atomic(path, text.encode())


class Parser(argparse.ArgumentParser):
    """An argparse parser that reports usage errors in one line, with what was probably meant, and exits with 2."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse, and report an unknown option here, where the options that may be meant are known."""
        options, left = super().parse_known_args(args, namespace)
        for name in (argument.partition("=")[0] for argument in left):
            if name.startswith("--"):
                self.error(unknown("option", name, [each for each in self._option_string_actions if each[:2] == "--"]))
        return options, left

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            what = "command" if isinstance(action, Commands) else "value"
            raise argparse.ArgumentError(action, unknown(what, str(value), map(str, action.choices)))

    def error(self, message: str) -> NoReturn:
        """Print the message and a hint to --help, and exit."""
        print(error_line(f"{self.prog}: {message}") + f" (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(EXIT_USAGE)
