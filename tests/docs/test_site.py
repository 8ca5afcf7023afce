"""The site builds, and every link in README, docs, reports and pages of checks leads somewhere."""

import logging
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_site_builds_without_a_broken_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")  # the theme advertises its successor
    pytest.importorskip("material", reason="needs the extra docs: mkdocs-material")
    pytest.importorskip("mkdocstrings", reason="needs the extra docs: mkdocstrings")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    with caplog.at_level(logging.WARNING):
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path)))
    assert [record.getMessage() for record in caplog.records] == []
    api = (tmp_path / "docs" / "api" / "index.html").read_text(encoding="utf-8")
    assert "Per-parameter" in api or "param_groups" in api
    assert (tmp_path / "reports" / "example" / "figures" / "sensitivity.svg").is_file()
