"""Token files that are encoded again: ids by rank, the rest as one, and the share that is printed."""

from pathlib import Path

import numpy as np
import pytest

from mue_check.cli import main
from mue_check.data.encode import LARGEST_VOCAB, encode_tokens
from mue_check.data.token_file import token_file_corpus
from mue_check.errors import DataError


def written(path: Path, tokens: list[int]) -> Path:
    np.array(tokens, dtype=np.uint32 if path.name.endswith(".u32.bin") else np.uint16).tofile(path)
    return path


def test_frequent_ids_are_kept_by_rank(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = written(tmp_path / "t.u32.bin", [200_000] * 5 + [7] * 3 + [131_072, 9, 9, 7])
    assert main(["encode", str(source), "--out", str(tmp_path / "s.bin"), "--vocab", "3"]) == 0
    assert np.fromfile(tmp_path / "s.bin", dtype="<u2").tolist() == [0] * 5 + [1] * 3 + [2, 2, 2, 1]
    first, second = capsys.readouterr().out.splitlines()
    assert first.split(maxsplit=1)[1] == "4 that occur, now 3"
    assert second.split(maxsplit=1)[1] == "12, of which 75.00% keep an id of their own"
    assert token_file_corpus(tmp_path / "s.bin").vocab == 3


def test_a_vocabulary_that_fits_loses_nothing(tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).integers(0, LARGEST_VOCAB, 100_000)
    source = written(tmp_path / "t.u32.bin", tokens.tolist())
    done = encode_tokens(source, tmp_path / "s.u32.bin", LARGEST_VOCAB)
    small = np.fromfile(tmp_path / "s.u32.bin", dtype="<u4")
    assert (done.share, done.before, done.after) == (1, len(set(tokens)), len(set(small)))
    back = dict(zip(small.tolist(), tokens.tolist(), strict=True))
    assert [back[token] for token in small.tolist()] == tokens.tolist()
    counts = np.bincount(small)
    assert (np.diff(counts) <= 0).all()


@pytest.mark.parametrize(
    ("tokens", "target", "vocab", "says"),
    [
        ([LARGEST_VOCAB], "s.bin", 9, "holds token id 262144"),
        ([1, 2], "s.bin", 70_000, "do not fit into uint16"),
        ([1, 2], "t.u32.bin", 9, "is the file that is read"),
        ([1, 2], "no/s.bin", 9, "cannot be written"),
    ],
)
def test_what_cannot_be_encoded_is_said(tmp_path: Path, tokens: list[int], target: str, vocab: int, says: str) -> None:
    source = written(tmp_path / "t.u32.bin", tokens)
    with pytest.raises(DataError, match=says):
        encode_tokens(source, tmp_path / target, vocab)
    assert np.fromfile(source, dtype="<u4").tolist() == tokens


def test_uint32_with_the_name_of_uint16_is_recognized(tmp_path: Path) -> None:
    np.arange(1, 100, dtype=np.uint32).tofile(tmp_path / "t.bin")
    with pytest.raises(DataError, match=r"looks like uint32.*\*\.u32\.bin"):
        token_file_corpus(tmp_path / "t.bin")
