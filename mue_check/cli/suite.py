"""``mue_check suite``: run the suites with pytest, from any folder."""

import os
import sys
from typing import NoReturn

from mue_check.cli.command import Commands, Options, Parser


def add(commands: "Commands[Parser]") -> None:
    """Declare the command, for the list of commands. Its arguments are pytest's."""
    command = commands.add_parser(
        "suite", help="run the suites: how an optimum drifts along every axis", add_help=False
    )
    command.set_defaults(run=run)


def run(options: Options) -> NoReturn:
    """Become a pytest process that runs the suites with the arguments after the command. SpecError without suites."""
    from mue_check.suite.folder import pytest_arguments

    command = [sys.executable, "-m", "pytest", *pytest_arguments(options.theirs)]
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606 - no shell reads it
