"""``mue_check explain``: the page of a check: its law, why it matters, what is measured, and how to fix a failure."""

from pathlib import Path

from mue_check.cli.command import EXIT_OK, Commands, Options, Parser
from mue_check.errors import ClaimError, unknown

_PAGES = Path(__file__).parents[1] / "conformance" / "pages"
_INDEX = "README"


def add(commands: "Commands[Parser]") -> None:
    """Declare the command."""
    command = commands.add_parser(
        "explain",
        help="the page of a check: why its law matters, and how to fix a failure",
        description="Print the page of a check of `mue_check router` and `mue_check block`. Without an id: the list of "
        "all checks, how they run, and what a claim can say.",
        epilog="example: mue_check explain bias-selection",
    )
    command.add_argument("check", nargs="?", metavar="ID", default=_INDEX, help="the id of a check, such as weight-sum")
    command.set_defaults(run=run)


def run(options: Options) -> int:
    """Print the page."""
    pages = {path.stem: path for path in _PAGES.glob("*.md")}
    if options.check not in pages:
        raise ClaimError(unknown("check", options.check, sorted(pages.keys() - {_INDEX})))
    print(pages[options.check].read_text(encoding="utf-8"), end="")
    return EXIT_OK
