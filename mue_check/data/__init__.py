"""Data for the reference models, by name. All data have a held-out part."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from mue_check.data.clips import keyframe, video
from mue_check.data.corpus import Corpus
from mue_check.data.docstrings import docstring_corpus
from mue_check.data.image_file import image_file
from mue_check.data.images import Images
from mue_check.data.markov import markov_corpus, pairs_corpus
from mue_check.data.memory import memory_corpus
from mue_check.data.pictures import image_high, image_low, photo_crops
from mue_check.data.protocol import Data
from mue_check.data.token_file import token_file_corpus
from mue_check.errors import DataError, unknown

CORPORA: dict[str, Callable[[], Data]] = {
    "markov": markov_corpus,
    "docstrings": docstring_corpus,
    "image_low": image_low,
    "image_high": image_high,
    "keyframe": keyframe,
    "video": video,
    "photo_crops": photo_crops,
}
SOURCES: dict[str, Callable[[int], Data]] = {"pairs": pairs_corpus, "memory": memory_corpus}
"""Synthetic sources of a tier's own tasks, by the seed of their table: ``pairs`` has table 0, ``pairs:1`` another."""
_GIVEN: dict[str, Data] = {}


def give_data(name: str, data: Data) -> None:
    """Make ``load_data(name)`` return ``data``, in a process that does not have its file (a node of a cluster)."""
    _GIVEN[name] = data


def load_data(name: str) -> Data:
    """The built-in data of that name, or the file at that path: tokens (``.bin``) or images (``.npy``). DataError."""
    return _GIVEN[name] if name in _GIVEN else _load(name)


def load_corpus(name: str) -> Corpus:
    """The corpus of that name. Raises DataError if it is not tokens."""
    return require_tokens(load_data(name))


def require_tokens(data: Data) -> Corpus:
    """``data`` as a corpus. Raises DataError if it is not tokens."""
    if not isinstance(data, Corpus):
        raise DataError(f"{data.name!r} has no tokens, and a language model needs them")
    return data


def require_images(data: Data) -> Images:
    """``data`` as images. Raises DataError if it is something else."""
    if not isinstance(data, Images):
        raise DataError(f"{data.name!r} has no images, and a diffusion model needs them")
    return data


def data_maker(name: str) -> Callable[[], Data]:
    """What makes the built-in data of that name, or reads the file. Raises DataError if the name is unknown."""
    if name in CORPORA:
        return CORPORA[name]
    source, _, table = name.partition(":")
    if source in SOURCES and (table.isdecimal() or source == name):
        return partial(SOURCES[source], int(table or 0))
    if name.endswith(".bin"):
        return partial(token_file_corpus, Path(name))
    if name.endswith(".npy"):
        return partial(image_file, Path(name))
    raise DataError(f"{unknown('corpus', name, [*CORPORA, *SOURCES])}, tokens FILE.bin, or images FILE.npy")


@cache
def _load(name: str) -> Data:
    return data_maker(name)()


__all__ = [
    "CORPORA",
    "SOURCES",
    "Corpus",
    "Data",
    "Images",
    "data_maker",
    "give_data",
    "load_corpus",
    "load_data",
    "require_images",
    "require_tokens",
]
