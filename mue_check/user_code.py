"""Calls into other people's code: what they raise in one line with its place, no exits, and a limit on time.

The user's code may raise anything: SystemExit, ``pytest.exit`` and ``pytest.skip``, or an exception whose text cannot
be read. ``no_exit`` turns all of these into an Exception, so that no caller takes an exit for a result.
"""

import importlib
import importlib.util
import signal
import sys
import sysconfig
import threading
import traceback
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

from mue_check.errors import hide_secrets

_LONGEST = 200
_BREAKING = {"Cc", "Cs", "Zl", "Zp"}
_PACKAGE = Path(__file__).parent
_LIBRARIES = {"site-packages", "dist-packages"}


class UserCodeExit(Exception):
    """User code raised something that is no Exception, such as SystemExit. The message has one line."""


class TimeLimit(BaseException):
    """A call took too long. Not an Exception, so a candidate's ``except Exception`` does not swallow it."""


@contextmanager
def no_exit() -> Iterator[None]:
    """Turn an exit of user code into a UserCodeExit. Ctrl-C and the time limit pass."""
    try:
        yield
    except BaseException as error:
        of_pytest = type(error).__module__ == "_pytest.outcomes"  # pytest.exit raises an Exception
        if isinstance(error, Exception | KeyboardInterrupt | TimeLimit) and not of_pytest:
            raise
        raise UserCodeExit(describe_error(error)) from error


def import_user_module(where: str) -> object:
    """Import a module by its name, or a file by its path; neighbors of the file can be imported from then on.

    A file in a package may import from it by relative names.
    """
    if not where.endswith(".py"):
        if Path(where).is_file():
            raise ImportError(f"a file of code must end in .py: {where}")
        if "" not in sys.path and str(Path.cwd()) not in sys.path:
            sys.path.insert(0, "")  # the console script does not look in the current folder by itself
        return importlib.import_module(where)
    path = Path(where).resolve()
    folders = list(takewhile(lambda folder: (folder / "__init__.py").is_file(), path.parents))
    package = [folder.name for folder in reversed(folders)]
    # a name of its own: another module may have that of the file
    name = ".".join([*package, f"_mue_check_{path.stem}"])
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"no such file {where}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look the module up by name
    known = sys.modules.setdefault(path.stem, module)  # and so may a neighbor
    sys.path[:0] = dict.fromkeys([str(path.parent), str(path.parents[len(folders)])])
    try:
        spec.loader.exec_module(module)
    except BaseException:
        for each in (name, *([path.stem] if known is module else [])):  # as after any import that fails
            sys.modules.pop(each, None)
        raise
    return module


def first_line(error: BaseException) -> str:
    """The first line of an exception's message without secrets, at most 200 characters, control characters escaped."""
    try:
        text = hide_secrets(str(error))
    except BaseException as trouble:  # the exception is the user's class
        text = f"its text raises {type(trouble).__name__}"
    return one_line((text.strip().splitlines() or [""])[0][:_LONGEST])


def one_line(text: str) -> str:
    """The text with line breaks and control characters written as escapes."""
    return "".join(c if is_one_line(c) else c.encode("unicode_escape").decode() for c in text)


def is_one_line(text: str) -> bool:
    """Whether a text has no line breaks, control characters, and halves of characters (of an undecodable file name)."""
    return not any(unicodedata.category(c) in _BREAKING for c in text)


def describe_error(error: BaseException, *, code: bool = False) -> str:
    """Type, first line, and the user's line that led to it: ``ValueError: no (train.py:3)``.

    ``code`` adds the text of that line, and leaves out all but the first sentence of the message.
    """
    if isinstance(error, UserCodeExit):
        return str(error)
    message = first_line(error).partition(". ")[0] if code else first_line(error)
    return type(error).__name__ + (f": {message}" if message else "") + own_line(error, code=code)


def own_line(error: BaseException, *, code: bool = False) -> str:
    """`` (FILE:LINE)`` of the last line in the user's own code; of an installed package, where no other is involved."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(Path(frame.filename))]
    own = [frame for frame in frames if not _LIBRARIES & set(Path(frame.filename).parts)] or frames
    if not own:
        return ""
    text = f": {own[-1].line}" if code and own[-1].line else ""
    return f" ({Path(own[-1].filename).name}:{own[-1].lineno}{text})"


def _is_users(file: Path) -> bool:
    """Whether a file belongs to the user. The shipped mutants count as a user's code."""
    if file.is_relative_to(_PACKAGE):
        return file.is_relative_to(_PACKAGE / "mutants")
    torch = getattr(sys.modules.get("torch"), "__file__", None)
    if file.name.startswith("<") or (torch and file.is_relative_to(Path(torch).parent)):
        return False
    return bool(_LIBRARIES & set(file.parts)) or not file.is_relative_to(sysconfig.get_path("stdlib"))


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeLimit after ``seconds``; only the main thread can be interrupted, others have no limit."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise TimeLimit

    before = signal.signal(signal.SIGALRM, stop)
    # repeated, because a candidate may catch the first one
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
