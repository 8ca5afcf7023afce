"""Messages never show a secret of the environment."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mue_check.cluster import ClusterInfo
from mue_check.errors import SpecError, hide_secrets
from mue_check.records.journal import at_work
from mue_check.suite.settings import Settings
from mue_check.suite.workers import start_workers
from mue_check.user_code import first_line
from tests.records.test_journal import make_cells

TOKEN = "c2VjcmV0//dG9rZW4="


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("MY_PASSWORD", "hunter2!")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("SSH_KEY", __file__)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"Ray refuses {TOKEN} here", "Ray refuses *** here"),
        ("login with hunter2! fails", "login with *** fails"),
        ("https://me:pass@host/x and redis://:pw@h:1", "https://***@host/x and redis://***@h:1"),
        ("started with OTHER_API_KEY=abc123 X=1", "started with OTHER_API_KEY=*** X=1"),
        ("a false word, 3 tokens_per_step=4", "a false word, 3 tokens_per_step=4"),
        (f"file {__file__}", f"file {__file__}"),
    ],
)
def test_secrets_are_hidden(text: str, shown: str) -> None:
    assert hide_secrets(text) == str(SpecError(text)) == first_line(ValueError(text)) == shown


def test_a_workers_variable_is_named_without_its_value() -> None:
    info = ClusterInfo(address="h:1", cpus=1, gpus=0, environment={"RAY_AUTH_TOKEN": TOKEN})
    assert TOKEN not in repr(info)
    with pytest.raises(SpecError, match="the value of RAY_AUTH_TOKEN contains //") as caught:
        start_workers(None, [info.environment])
    assert TOKEN not in caught.value.args[0]


def test_logs_and_commands_hold_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    with at_work(tmp_path, [replace(cell, corpus="s3://me:pass@bucket/hunter2!.bin") for cell in make_cells()]):
        pass
    logged = (tmp_path / "logs" / "main.log").read_text()
    assert "s3://***@bucket/***.bin" in logged
    assert "pass@" not in logged
    options = ("--study", "/home/hunter2!", "--corpus", "s3://me:pass@x")
    stored = Settings.command(SimpleNamespace(program=("pytest",), options=options), "suites/test_width.py")  # type: ignore[arg-type]
    assert stored == "pytest suites/test_width.py --study '/home/***' --corpus 's3://***@x'"
