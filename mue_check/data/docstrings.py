"""A text corpus that needs no download: the docstrings of Python's standard library."""

import ast
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mue_check.data.corpus import Corpus
from mue_check.errors import DataError

ALPHABET = " abcdefghijklmnopqrstuvwxyz"
BLOCK = 512
LETTERS = 600_000
"""Enough for thousands of steps. Reading the whole library would take three times as long."""
HELDOUT_SHARE = 0.08
_SKIP = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "pydoc_data", "lib2to3"}
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def standard_library() -> Path:
    """The folder with the sources of the standard library."""
    return Path(sysconfig.get_path("stdlib"))


def docstrings(root: Path) -> Iterator[str]:
    """Every docstring below ``root`` except in tests, in the order of path and line."""
    for path in sorted(root.rglob("*.py")):
        if _SKIP.intersection(path.relative_to(root).parts):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # warnings about this code must not become errors under -W
                tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue  # a template, or a file for another version of Python
        for node in ast.walk(tree):
            if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node)):
                yield text


def letters(text: str) -> NDArray[np.uint16]:
    """Lower-case letters and single spaces as tokens 0..26. Everything else becomes a space."""
    plain = re.sub("[^a-z]+", " ", text.lower())
    table = np.zeros(128, dtype=np.uint16)
    table[[ord(letter) for letter in ALPHABET]] = np.arange(len(ALPHABET))
    return table[np.frombuffer(plain.encode("ascii"), dtype=np.uint8)]


def _joined(texts: Iterator[str], enough: int) -> str:
    parts, total = [], 0
    for text in texts:
        parts.append(text)
        total += len(text)
        if total >= enough * 1.2:  # punctuation and repeated spaces are removed
            break
    return " ".join(parts)


def docstring_corpus(root: Path | None = None) -> Corpus:
    """Docstrings in 27 letters. Blocks of 512 are shuffled before the split, so both parts are equal in kind."""
    root = standard_library() if root is None else root
    tokens = letters(_joined(docstrings(root), LETTERS))
    blocks = tokens[: len(tokens) // BLOCK * BLOCK].reshape(-1, BLOCK)
    if len(blocks) < 100:
        raise DataError(
            f"corpus 'docstrings': {root} has {len(tokens)} letters of docstrings, and at least {100 * BLOCK} are "
            f"needed (Python {sys.version_info.major}.{sys.version_info.minor} without its library sources?)"
        )
    blocks = blocks[np.random.default_rng(0).permutation(len(blocks))]
    heldout = max(1, int(len(blocks) * HELDOUT_SHARE))
    return Corpus(
        name="docstrings",
        train=blocks[heldout:].reshape(-1),
        heldout=blocks[:heldout].reshape(-1),
        vocab=len(ALPHABET),
    )
