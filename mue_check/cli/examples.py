"""``mue_check examples``: copy the examples of the documentation, to try commands on and to start from."""

from pathlib import Path

from mue_check.cli.command import EXIT_OK, Commands, Options, Parser
from mue_check.errors import SpecError


def add(commands: "Commands[Parser]") -> None:
    """Declare the command."""
    command = commands.add_parser(
        "examples",
        help="copy an example router, model, sweep and notebook into a folder",
        description="Copy the examples of the documentation into a folder: a router, a model, a sweep and a notebook.",
        epilog="example: mue_check examples && mue_check router my_router.py:Router",
    )
    command.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="DIR", help="default: this folder")
    command.set_defaults(run=run)


def run(options: Options) -> int:
    """Copy the files. SpecError, before anything is written, if one of them exists."""
    from mue_check.suite.folder import shipped

    place = shipped("examples", in_checkout="docs/examples")
    copies = {path: options.folder / path.name for path in sorted(place.iterdir()) if path.is_file()}
    for copy in copies.values():
        if copy.exists():
            raise SpecError(f"{str(copy)!r} exists: name another folder")
    options.folder.mkdir(parents=True, exist_ok=True)
    for path, copy in copies.items():
        copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
        print(copy)
    return EXIT_OK
