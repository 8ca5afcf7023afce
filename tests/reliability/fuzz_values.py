"""Odd values, files and command lines for the campaign ``fuzz``, drawn from a seed."""

from __future__ import annotations

import argparse
import random
import re
from pathlib import Path

import mue_check.sigma0
from mue_check.cli import _parser
from mue_check.sigma0.calibration import PACKAGED

WORDS = (
    *("", " ", "0", "-1", "1", "1.5", "nan", "inf", "-inf", "1e400", "1e-400", "9" * 400, "9" * 5000, "0x10", "1_000"),
    *("true", "None", "x", "x" * 300, "x" * 5000, "a/b/" * 100, "..", "/", "/dev/null", "/proc/self/mem", "~", "-"),
    *("\n", "a\nb", "a\tb", "\x00", "\x1b[2J", "\u202e", "\ud800", "é", "\u0663", "\U0001f4a5", "[" * 100_000, ","),
    *("{" * 1000, "=", ",,", ":", "::", "a:b", "a.py:b", "builtin:", "builtin:sigmoid_norm", "1:2", "4:8", "10m"),
    *("1h30m", "99999h", "cpu", "cuda", "cuda:99", "fp32", "width,depth", "zipf:1", "hot:1:0.5", "1,2,3", "%s"),
    *("markov", "complete_mue"),
)
NUMBERS = (
    *("0", "1", "2", "3", "7", "8", "16", "63", "64", "65", "1000", "65536", "1048576", "1048577", "1000000000000000"),
    *("1000000000000001", "-1", "0.5", "-0.5", "1e-300", "1e300", "1e-9", "1e9", "null", "[]", '"1"'),
)
"""What a number is replaced by."""
TEXTS = (
    *("", " ", "\n", "{}", "[]", "null", "1", "1\n2\n3\n4", "1,2,3,4", "[1, 2, 3, 4]", "[1e400, 1, 1, 1]"),
    *("nan\n1\n1\n1", "[" * 100_000, '{"a":' * 50_000, "a = " + "[" * 50_000, f"[{'9' * 5000}, 1, 1, 1]"),
    *(f"[{10**400}, 1, 1, 1]", 'kind = "token_choice"', "kind = 3", "top_k = true", f"top_k = {'9' * 400}"),
    *("weight_sum = inf", "[returns]\nweights = -1", 'runs = "later"', "runs = 3", '[roles]\n"a" = 3'),
    *("[multipliers]\nrouter = nan", '[multipliers]\nrouter = "x"', "d = 32\nL = 2\nH = 32", "d = 1e9"),
    *(f"d = {'9' * 400}\nL = 2\nH = 32", 'load = "zipf:1"', "a = 1\na = 2", "\x00", "\ufeff1,1"),
)
USUAL = {
    "reference": "d=128,L=2,H=128,B=64,T=10",
    "target": "d=64,L=2,8e2a,h=32",
    "spec": "4e1a",
    "load": "4,2,1,1",
    "batch": "4096",
    "shapes": "24x16x8x2",
    "budget": "10m",
    "seeds": "4:8",
    "axes": "width,depth",
    "heldout": "d=64,L=2,8e2a,h=32,load=zipf:1",
    "beside": "standard,mup",
    "router": "builtin:sigmoid_norm",
    "candidate": "builtin:sigmoid_norm",
    "factory": "mue_check.mutants.setups.broken:right",
    "corpus": "markov",
    "rule": "complete_mue",
    "tier": "smoke",
    "precision": "fp32",
    "device": "cpu",
    "only": "headline",
    "study": "absent",
    "lr": "1e-3",
    "weight_decay": "0.1",
    "init_std": "0.01",
    "eps": "1e-8",
    "beta1": "0.9",
    "beta2": "0.95",
    "tolerance": "0.5",
    "workers": "2",
    "time_limit": "20",
    "deadline": "10",
    "rungs": "2",
}
"""Right values, by the name of the option: what is broken is near them."""
NEEDED: dict[str, tuple[str, ...]] = {
    "audit": ("factory", "reference"),
    "router": ("candidate",),
    "block": ("candidate",),
    "rules": ("reference", "target"),
    "report": ("study",),
    "compare": ("study",),
    "budget": ("load", "spec", "batch"),
}
WRITTEN = frozenset({"out", "study", "json", "junit", "save_calibration"})
"""Options that name what is written: their values stay in the folder of the case."""
FILES = ("claim", "expected", "roles", "calibration", "load", "corpus", "heldout", "reference", "target", "spec")
PYTEST = (
    *("tier", "axes", "corpus", "rule", "router", "claim", "expected", "heldout", "beside", "seeds", "rungs", "study"),
    *("precision", "tolerance", "gpus", "gpus-per-worker", "workers-per-gpu", "cluster", "gpu-share"),
    "cluster-workers",
)


class Draw:
    """Odd values from one seed; files go into ``folder``."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.random, self.folder = random.Random(seed), folder

    def value(self, name: str) -> str:
        """For the option of that name: a word, a broken form of a right value, random characters, or a file."""
        usual, way = USUAL.get(name, ""), self.random.random()
        if name in FILES and way < 0.4:
            return self.file(name)
        if way < 0.7 and usual:
            return self.near(usual)
        if way < 0.85:
            return self.random.choice(WORDS)
        if way < 0.95 and usual:
            return self.broken(usual)
        letters = [*map(chr, range(32, 127)), "\u03b1", "\n", "\U0001f600"]
        return "".join(self.random.choices(letters, k=self.random.randrange(12)))

    def near(self, text: str) -> str:
        """A text with one to three of its numbers changed, or as it is if it has none."""
        for _ in range(self.random.randrange(1, 4)):
            if numbers := [*re.finditer(r"\d[\d.]*(?:e-?\d+)?", text)]:
                found = self.random.choice(numbers)
                text = text[: found.start()] + self.random.choice(NUMBERS) + text[found.end() :]
        return text

    def broken(self, text: str) -> str:
        """A text with one place changed."""
        at = self.random.randrange(len(text) + 1)
        return text[:at] + self.random.choice(WORDS) + text[at + self.random.randrange(3) :]

    def file(self, name: str) -> str:
        """The path of a file with odd contents, or with a calibration that has one place changed."""
        ending = self.random.choice((".toml", ".json", ".csv", ".bin", ".txt", ""))
        path = self.folder / f"file{ending}"
        text = self.random.choice(TEXTS)
        if name == "calibration" and (way := self.random.random()) < 0.9:
            packaged = Path(mue_check.sigma0.__file__).with_name(PACKAGED).read_text()
            text = self.near(packaged) if way < 0.7 else self.broken(packaged)
        data = text.encode("utf-8", "surrogatepass")
        path.write_bytes(self.random.randbytes(self.random.randrange(2000)) if self.random.random() < 0.1 else data)
        return str(path)


def command_case(draw: Draw) -> list[str]:
    """A command with what it needs, and one to three of its options with odd values."""
    (commands,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    name = draw.random.choice(sorted(commands.choices))
    actions = [a for a in commands.choices[name]._actions if a.dest != "help"]
    odd = {a.dest for a in draw.random.sample(actions, min(len(actions), draw.random.choice((1, 1, 1, 2, 3))))}
    flags, places = [], []
    for action in actions:
        if action.dest not in odd and action.dest not in NEEDED.get(name, ()):
            continue
        value = USUAL.get(action.dest, "")
        if name == "block" and action.dest == "candidate":
            value = "mue_check.mutants.routing.blocks:CompleteMueBlock"
        if action.choices and draw.random.random() < 0.8:
            value = str(draw.random.choice(list(action.choices)))
        elif action.dest in odd:
            value = draw.value(action.dest)
        if action.dest in WRITTEN and name not in ("report", "compare"):
            value = value.replace("..", "").lstrip("/-~")
        if not action.option_strings:
            places.append(value)
        else:
            flags.append(action.option_strings[0] + (f"={value}" if action.nargs != 0 else ""))
    return [name, *flags, "--", *places] if places else [name, *flags]


def pytest_case(draw: Draw) -> list[str]:
    """Options of ``pytest suites/``, one to three with odd values."""
    given = {name: draw.value(name) for name in draw.random.sample(PYTEST, draw.random.choice((1, 1, 1, 2, 3)))}
    if "claim" in given:
        given.setdefault("router", "docs/examples/my_router.py:Router")
    if "cluster" in given:
        given["cluster"] = given["cluster"].replace("local", "")  # which would start one
    return ["suites/", *(f"--{name}={value}" for name, value in given.items())]
