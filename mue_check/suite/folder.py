"""Where the suites are: inside an installed package, or next to it in a checkout; and how pytest runs them."""

from collections.abc import Sequence
from pathlib import Path

import mue_check
from mue_check.errors import SpecError

_PACKAGE = Path(mue_check.__file__).parent
NAME = "suites"
_PLUGIN = "mue_check.pytest_plugin"
_OURS = ("--import-mode=importlib", "-p", "no:cacheprovider")
"""Options that a checkout's pyproject.toml sets, too."""


def is_packaged(root: Path) -> bool:
    """Whether the suites of a run with this root folder are those of an installed package."""
    return root == _PACKAGE


def shipped(name: str, *, in_checkout: str) -> Path:
    """A folder that the installed package holds, and that a checkout has elsewhere. SpecError if there is none."""
    for folder in (_PACKAGE / name, _PACKAGE.parent / in_checkout):
        if folder.is_dir():
            return folder
    raise SpecError(f"{name} are neither in {str(_PACKAGE)!r} nor next to it: install mue_check again")


def suites_folder() -> Path:
    """The folder of the suites. SpecError if there is none."""
    return shipped(NAME, in_checkout=NAME)


def pytest_arguments(given: Sequence[str], suites: Path | None = None) -> list[str]:
    """The arguments of pytest that run the suites with ``given`` options, from any folder.

    Names of test files among them may leave out the folder. Without one, all suites are run.
    """
    suites = suites or suites_folder()
    named = [_in_suites(argument, suites) for argument in given]
    everything = () if any(named) else (str(suites),)
    chosen = [path or argument for path, argument in zip(named, given, strict=True)]
    # an empty configuration: the one of a project around the environment is not meant for the suites
    own = ("-c", str(Path(__file__).with_name("pytest.ini"))) if is_packaged(suites.parent) else ()
    return ["-p", _PLUGIN, "--rootdir", str(suites.parent), *own, *_OURS, *everything, *chosen]


def _in_suites(argument: str, suites: Path) -> str | None:
    """The whole path of a test file, or of a test in it; None for any other argument."""
    name, sign, test = argument.removeprefix(f"{NAME}/").partition("::")
    path = suites / name
    return f"{path}{sign}{test}" if name.endswith(".py") and path.is_file() else None
