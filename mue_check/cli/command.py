"""What all commands share: exit codes, and a parser that reports usage errors in one line."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

EXIT_OK, EXIT_FAIL, EXIT_USAGE, EXIT_INCONCLUSIVE = 0, 1, 2, 3
EXIT_INTERRUPTED, EXIT_UNREAD = 130, 141
"""The exit codes of shells for SIGINT and SIGPIPE, so that a command that stopped halfway does not look like a pass."""

Options = argparse.Namespace
Run = Callable[[Options], int]


class Parser(argparse.ArgumentParser):
    """An argparse parser that reports usage errors in one line and exits with 2."""

    def error(self, message: str) -> NoReturn:
        """Print the message and a hint to --help, and exit."""
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(EXIT_USAGE)


Commands = argparse._SubParsersAction
"""The type of ``add_subparsers()``, for which argparse has no public name."""
