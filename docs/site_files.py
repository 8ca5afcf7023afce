"""mkdocs calls this: the site has the layout of the repository, so that its links work on both."""

import subprocess
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
SHOWN = ("README.md", "CHANGELOG.md", "LICENSE", "action.yml", "docs", "reports", "bench", "mue_check", "tests")
MOST_BYTES = 2_000_000
"""Packed records are larger, and no page shows them."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Every page and figure under its path in the repository, and the theme's own files. New files count, too."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *SHOWN],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    ours = (path for path in listed.stdout.splitlines() if (ROOT / path).is_file())
    shown = [path for path in ours if (ROOT / path).stat().st_size < MOST_BYTES]
    made = [File.generated(config, path, abs_src_path=str(ROOT / path)) for path in shown]
    return Files([*(file for file in files if file.src_dir != config.docs_dir), *made])
