"""One more line on a terminal, below all that is written."""

from __future__ import annotations

import re
import shutil
import threading
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from _pytest._io import TerminalWriter

_COLOURS = re.compile(r"\x1b\[[\d;]*m")


class StatusLine:
    """Stands between pytest and its terminal: what is written next takes the place of the line that is shown."""

    def __init__(self, writer: TerminalWriter) -> None:
        self._writer, self._stream = writer, writer._file
        self._lock = threading.Lock()
        self._line = ""  # what was written since the last newline
        self._erase = ""  # takes the shown line away and goes back to the end of what was written
        writer._file = cast(TextIO, self)

    def write(self, text: str) -> int:
        """Write for pytest."""
        with self._lock:
            self._line = _COLOURS.sub("", self._line + text).rpartition("\n")[2].rpartition("\r")[2]
            written = self._stream.write(self._erase + text)
            self._erase = ""
            return written

    def flush(self) -> None:
        """Flush for pytest."""
        with self._lock:
            self._stream.flush()

    def show(self, text: str) -> None:
        """Show this in place of what is shown; from any thread."""
        with self._lock:
            room = shutil.get_terminal_size().columns - 1
            self._stream.write(self._erase + ("\n" if self._line else "") + text[:room])
            self._stream.flush()
            self._erase = "\r\x1b[K" + (f"\x1b[A\x1b[{len(self._line)}C" if self._line else "")

    def close(self) -> None:
        """Take the line away, and give pytest its terminal back."""
        with self._lock:
            self._stream.write(self._erase)
            self._stream.flush()
            self._writer._file = self._stream
