"""Code in a child process: whatever it does, the parent gets an answer, and no child outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from mue_check.errors import ClaimError
from mue_check.isolation import ChildError, isolated


class Code:
    """Someone's code."""

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def add(self, other: int) -> int:
        self.number += other
        return self.number

    def pid(self) -> int:
        return os.getpid()

    def hang(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # as a loop in C
        time.sleep(3600)

    def end(self) -> None:
        print("last words", file=sys.stderr, flush=True)
        os._exit(3)

    def kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def interrupt(self) -> None:
        raise KeyboardInterrupt("now\nand then")

    def refuse(self) -> None:
        raise ClaimError("not like this")

    def flood(self) -> str:
        for _ in range(2000):
            print("x" * 1000)
            print("x" * 1000, file=sys.stderr)
        os.write(1, b"x" * 10**6)
        return "done"

    def fork(self) -> int:
        os.fork()
        return self.number

    def fork_and_end(self) -> None:
        if os.fork() == 0:
            time.sleep(60)
        os._exit(0)

    def write_into_files(self) -> None:
        for number in range(3, 64):
            with suppress(OSError):
                os.write(number, b"\x7f" * 100)

    def foreign(self) -> object:
        return self

    def unpicklable(self) -> object:
        return lambda: 0


def raises() -> None:
    raise ValueError("cannot be made")


def test_an_object_lives_between_calls(capfd: pytest.CaptureFixture[str]) -> None:
    with isolated(Code, 40, limit=60) as child:
        assert child.call("add", 1, limit=5) == 41
        assert child.call("flood", limit=30) == "done"
        assert child.call("add", 1, limit=5) == 42
        with pytest.raises(ClaimError, match="not like this"):
            child.call("refuse", limit=5)
        with pytest.raises(
            ChildError, match=r"raises KeyboardInterrupt: now \(test_isolation.py:42\) while it is asked"
        ):
            child.call("interrupt", limit=5, doing=" while it is asked")
        with pytest.raises(ChildError, match=r"raises .*pickle"):
            child.call("unpicklable", limit=5)
        assert child.call("pid", limit=5) == child.process.pid
        pid = child.process.pid
    assert not Path(f"/proc/{pid}").exists()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ("hang", r"^hangs while it sleeps: no answer in 0\.3 s$"),
        ("end", r"^ends its process \(exit code 3\) while it sleeps: last words$"),
        ("kill", r"^ends its process \(signal 9\) while it sleeps$"),
    ],
)
def test_a_call_that_never_returns_is_an_error(method: str, says: str) -> None:
    with isolated(Code, limit=60) as child:
        limit = 0.3 if method == "hang" else 30.0
        with pytest.raises(ChildError, match=says):
            child.call(method, limit=limit, doing=" while it sleeps")
        if method != "hang":  # later calls say so too
            with pytest.raises(ChildError, match="ends its process"):
                child.call("add", 1, limit=5)


def test_a_fork_answers_once() -> None:
    with isolated(Code, 7, limit=60) as child:
        assert [child.call("fork", limit=20), child.call("add", 1, limit=5)] == [7, 8]


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ("fork_and_end", r"^ends its process \(exit code 0\)$"),
        ("write_into_files", r"^writes into the connection to its process$"),
        ("foreign", r"^writes into the connection to its process$"),
    ],
)
def test_only_an_answer_is_a_result(method: str, says: str, capfd: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    with pytest.raises(ChildError, match=says), isolated(Code, limit=60) as child:
        child.call(method, limit=30)
    assert time.monotonic() - began < 30
    assert capfd.readouterr().err == ""


def test_what_cannot_be_made_is_an_error() -> None:
    with pytest.raises(ChildError, match="raises ValueError: cannot be made"), isolated(raises, limit=60):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can end a child with its parent")
def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "from mue_check.isolation import isolated\nfrom tests.test_isolation import Code\n\n"
        "if __name__ == '__main__':\n"
        "    with isolated(Code, limit=60) as child:\n"
        "        print(child.call('pid', limit=5), flush=True)\n"
        "        child.call('hang', limit=600)\n"
    )
    root = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=env) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(pid, 0)
        parent.kill()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and Path(f"/proc/{pid}/stat").exists():
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":  # waits for init alone
            return
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
