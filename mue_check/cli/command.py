"""What every command shares: exit codes, and a parser whose usage errors are one line."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

EXIT_OK, EXIT_FAIL, EXIT_USAGE, EXIT_INCONCLUSIVE = 0, 1, 2, 3
EXIT_INTERRUPTED, EXIT_UNREAD = 130, 141
"""As shells count SIGINT and SIGPIPE: what stopped halfway has no verdict, and must not look like a pass."""

Options = argparse.Namespace
Run = Callable[[Options], int]


class Parser(argparse.ArgumentParser):
    """argparse, with usage errors in one line and exit 2."""

    def error(self, message: str) -> NoReturn:
        """Print the message with where to find help, and leave."""
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(EXIT_USAGE)


Commands = argparse._SubParsersAction
"""What ``add_subparsers`` gives; argparse has no public name for it."""
