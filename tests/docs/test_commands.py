"""Every command and snippet of README and docs: the options exist, and what is quick is run."""

import copy
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import mue_check
from mue_check.cli import _parser, main
from mue_check.conformance.case import ConformanceCase
from mue_check.routing.claim import RoutingSpec
from mue_check.routing.factory import SHAPES as CASE_SHAPES
from mue_check.routing.factory import load_candidate

ROOT = Path(__file__).parents[2]
GLOBS = (
    "README.md",
    "docs/**/*.md",
    "reports/*.md",
    "reports/bench/README.md",
    "mue_check/conformance/pages/README.md",
)
PAGES = sorted(page for pattern in GLOBS for page in ROOT.glob(pattern))
TOOLS = {"mue_check", "pytest", "python", "make", "pip", "ray", "sbatch", "tests/gpu/run.sh"}
QUICK = {"budget", "explain", "judge", "rules"}
"""Commands that take a second. The README's router line is run by tests/conformance/test_readme.py."""


class Shown(NamedTuple):
    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def commands() -> Iterator[Shown]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        shell = (block for tool in ("", "sh", "bash", "console") for block in blocks_of(text, tool))
        lines = [line.removeprefix("$ ") for block in shell for line in block.splitlines()]
        lines += [code for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text) if " -" in code]
        for line in lines:
            try:
                words = shlex.split(line.replace(".venv/bin/", ""), comments=True)
            except ValueError:
                continue  # an apostrophe: what a command prints
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                del words[0]
            if len(words) > 1 and words[0] in TOOLS and words[1] != "...":
                yield Shown(page.relative_to(ROOT).as_posix(), tuple(words[: (*words, ">").index(">")]))


def blocks_of(text: str, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for name, block in found if name == language]


ALL = sorted(set(commands()))


def of(*tools: str) -> list[Shown]:
    return [shown for shown in ALL if shown.words[0] in tools and "..." not in shown.words]


def is_suite(shown: Shown) -> bool:
    return shown.words[0] == "pytest" or shown.words[:2] == ("mue_check", "suite")


def test_commands_are_found() -> None:
    assert len(ALL) > 80
    assert {"own_model.md", "own_sweeps.md", "suites.md", "recipes.md"} <= {Path(shown.page).name for shown in ALL}


@pytest.mark.parametrize("shown", [s for s in of("mue_check") if not is_suite(s)], ids=str)
def test_options_of_mue_check_exist(shown: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    words = list(shown.words[1:])
    if len(words) == 2 and words[1].startswith("-"):
        # prose that names a command with one of its options
        with pytest.raises(SystemExit):
            main([words[0], "--help"])
        assert words[1] in capsys.readouterr().out
    else:
        _parser().parse_args(["torch" if word == "FORMAT" else word for word in words])


@pytest.mark.parametrize("shown", [s for s in ALL if is_suite(s)], ids=str)
def test_options_of_the_suites_exist(shown: Shown, request: pytest.FixtureRequest) -> None:
    words = [word for word in shown.words[1 + (shown.words[0] == "mue_check") :] if "..." not in word]
    if words[-1] == "--router":  # prose
        words.append("FACTORY")
    config = request.config
    parsed, unknown = config._parser.parse_known_and_unknown_args(words, copy.copy(config.option))
    assert not [word for word in unknown if word.startswith("-")]
    for path in parsed.file_or_dir:
        assert (ROOT / path.partition("::")[0]).exists() or (ROOT / "suites" / path).exists(), path


@pytest.mark.parametrize("shown", of("python", "tests/gpu/run.sh", "make"), ids=str)
def test_scripts_and_targets_exist(shown: Shown) -> None:
    tool, first, *rest = shown.words
    if tool == "make":
        assert f"\n{first}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
    elif tool == "python" and first == "-m":
        assert (ROOT / f"{rest[0].replace('.', '/')}.py").is_file()
    else:
        script = ROOT / (first if tool == "python" else tool)
        text = script.read_text(encoding="utf-8")
        assert [word for word in rest if word.startswith("--") and word.partition("=")[0] not in text] == []


@pytest.mark.parametrize("shown", of("pip"), ids=str)
def test_what_pip_installs_is_an_extra(shown: Shown) -> None:
    extras = re.findall(r"mue_check\[(.*?)\]", " ".join(shown.words))
    known = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert [extra for group in extras for extra in group.split(",") if f"\n{extra} = [" not in known] == []


def is_quick(shown: Shown) -> bool:
    """It takes a second, and all files that it names are there."""
    words = shown.words[1:]
    files = [word for word in words if re.search(r"\.(csv|toml|py|bsh)\b|/$", word)]
    capitals = [word for word in words if re.fullmatch(r"[A-Z]{3,}(\.\w+)?", word)]
    return words[0] in QUICK and not capitals and all((ROOT / file).exists() for file in files)


@pytest.mark.parametrize("shown", [s for s in of("mue_check") if is_quick(s)], ids=str)
def test_quick_commands_run(
    shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if shown.words[-1].startswith("-"):
        pytest.skip("prose: an option without its value")
    for name in ("docs", "reports"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    code = main(shown.words[1:])
    assert code in (0, 1, 3), capsys.readouterr().err  # an answer of either kind, and no usage error


def test_snippets_of_python_run() -> None:
    """Those of README and docs, with the names that the text around them introduces."""
    source: dict[str, Any] = {}
    for example in ("my_router.py", "my_model.py"):
        exec((ROOT / "docs" / "examples" / example).read_text(encoding="utf-8"), source)
    reference, target = (mue_check.parse_scenario(f"d={d},L=2,8e2a,h={d // 2},T=1000") for d in (64, 128))
    model = source["model"](width=128)
    given = {
        "mue_check": mue_check,
        "nn": nn,
        "torch": torch,
        "RoutingSpec": RoutingSpec,
        "Router": source["Router"],
        "make_router": source["Router"],
        "reference": reference,
        "target": target,
        "base": mue_check.HyperParameters(lr=0.01),
        "model": model,
    }
    run = 0
    for page in PAGES:
        for block in blocks_of(page.read_text(encoding="utf-8"), "python"):
            names = dict(given)
            exec(compile(block, str(page), "exec"), names)
            for check in names.get("CHECKS", ()):
                shape, device = CASE_SHAPES[0], torch.device("cpu")
                candidate = load_candidate("router", "builtin:sigmoid_norm")
                case = ConformanceCase(candidate=candidate, shape=shape, seed=0, device=device)
                assert check.run(case).status == "passed"
            run += 1
    assert run >= 7
