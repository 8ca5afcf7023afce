from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mue_check.data import Corpus, load_corpus
from mue_check.data.corpus import HELDOUT_WINDOWS
from mue_check.data.docstrings import ALPHABET, docstring_corpus, docstrings, letters
from mue_check.data.markov import CLASSES, entropy_rate, sample, transition_table
from mue_check.data.memory import memory_corpus
from mue_check.data.token_file import token_file_corpus
from mue_check.errors import DataError
from tests.data.bigrams import bigram_entropy


@pytest.mark.parametrize(("name", "classes", "seed"), [("markov", CLASSES, 0), ("pairs", 8, 0), ("pairs:1", 8, 1)])
def test_markov_entropy_is_the_sources_own(name: str, classes: int, seed: int) -> None:
    """-log P of a long walk agrees with the entropy computed from the table."""
    table = transition_table(classes=classes, seed=seed)
    corpus = load_corpus(name)
    tokens = corpus.train.reshape(400, -1)[:, :900].astype(int)  # whole chains
    surprise = -np.log(table[tokens[:, :-2], tokens[:, 1:-1], tokens[:, 2:]])
    assert corpus.entropy == pytest.approx(surprise.mean(), rel=5e-3)
    assert corpus.entropy is not None
    assert 0 < corpus.entropy < np.log(corpus.vocab)


def test_entropy_of_known_sources() -> None:
    uniform = np.full((4, 4, 4), 0.25)
    assert entropy_rate(uniform) == pytest.approx(np.log(4))
    cycle = np.zeros((3, 3, 3))
    cycle[:, range(3), [1, 2, 0]] = 1
    assert entropy_rate(cycle) == pytest.approx(0)
    assert (np.diff(sample(cycle, 2000, seed=0)[:5].astype(int)) % 3 == 1).all()


def test_two_tokens_say_more_than_one() -> None:
    """It is of order 2: knowing only the last token leaves more to guess."""
    table = transition_table()
    pairs = np.full((32, 32), 1 / 32**2)
    for _ in range(200):
        pairs = np.einsum("ab,abc->bc", pairs, table)
    last = pairs.sum(0)
    given_last = np.einsum("ab,abc->bc", pairs, table) / last[:, None]
    order_one = -np.einsum("b,bc,bc->", last, given_last, np.log(given_last))
    assert order_one > entropy_rate(table) + 0.2


def test_each_pair_of_the_memory_task_has_a_distribution_of_its_own() -> None:
    first, second = load_corpus("memory"), load_corpus("memory:1")
    assert first.fingerprint != second.fingerprint == memory_corpus(1).fingerprint
    assert 0.6 < (first.entropy or 0) < 0.9 < np.log(first.vocab)
    ranks = np.bincount(first.train, minlength=48)
    assert ranks[:16].sum() > 1.5 * ranks[32:].sum()
    assert len(first.heldout_windows(2)) == first.windows == 8192
    for name in ("memory:", "memory:x", "memory1", "none:1"):
        with pytest.raises(DataError, match=f"unknown corpus '{name}'"):
            load_corpus(name)


def test_the_usual_number_of_held_out_windows_is_not_in_the_fingerprint() -> None:
    corpus = load_corpus("markov")
    assert corpus.fingerprint == "3427bfe7570f52d7"
    assert replace(corpus, windows=256).fingerprint != corpus.fingerprint
    assert len(replace(corpus, windows=256).heldout_windows(16)) == 256


def test_docstrings_are_prose_in_27_letters(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        '"""Module one: First words."""\nclass C:\n    """Second, words!"""\n    x = "no doc"\n'
    )
    (tmp_path / "warns.py").write_text('"""Third."""\nx = "\\d"\n')
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "b.py").write_text('"""Not this one."""\n')
    assert list(docstrings(tmp_path)) == ["Module one: First words.", "Second, words!", "Third."]
    tokens = letters("Ab-c  Zz9\n")
    assert "".join(ALPHABET[t] for t in tokens) == "ab c zz "
    with pytest.raises(DataError, match=r"letters of docstrings, and at least"):
        docstring_corpus(tmp_path)


def test_real_text_is_there_on_every_machine() -> None:
    corpus = load_corpus("docstrings")
    assert corpus.vocab == 27
    assert len(corpus.train) > 300_000
    assert len(corpus.heldout) > 20_000
    share = np.bincount(corpus.train, minlength=27) / len(corpus.train)
    assert share[ALPHABET.index("e")] > share[ALPHABET.index("q")] > 0


@pytest.mark.parametrize("name", ["markov", "docstrings"])
def test_held_out_windows_do_not_overlap(name: str) -> None:
    windows = load_corpus(name).heldout_windows(32)
    assert windows.shape == (HELDOUT_WINDOWS, 33)
    assert windows.dtype == np.int64


def write(path: Path, tokens: np.ndarray) -> Path:
    tokens.tofile(path)
    return path


def test_a_token_file(tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).integers(0, 50, 5000).astype(np.uint16)
    corpus = load_corpus(str(write(tmp_path / "t.bin", tokens)))
    assert corpus.vocab == 50
    assert np.array_equal(np.concatenate([corpus.train, corpus.heldout]), tokens)
    assert len(corpus.heldout) == 500
    wide = token_file_corpus(write(tmp_path / "t.u32.bin", tokens.astype(np.uint32)))
    assert wide.fingerprint == corpus.fingerprint


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is empty"),
        (b"abc", "not a whole number of uint16 tokens"),
        (np.array([1, 60000], dtype=np.uint16).tobytes(), "token id 60000: ids must be below 4096"),
    ],
)
def test_bad_token_files(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "t.bin"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=says):
        load_corpus(str(path))


def test_a_short_token_file_says_how_much_it_lacks(tmp_path: Path) -> None:
    corpus = load_corpus(str(write(tmp_path / "t.bin", np.zeros(300, dtype=np.uint16))))
    with pytest.raises(DataError, match=r"its train part has 270 tokens, and a context of 32 needs at least 2112"):
        corpus.require_context(32)


def test_an_unknown_corpus_names_the_known_ones() -> None:
    known = "markov, docstrings, image_low, image_high, keyframe, video, photo_crops, pairs, memory"
    files = "tokens FILE.bin, or images FILE.npy"
    with pytest.raises(DataError, match=f"unknown corpus 'wikipedia': allowed are {known}, {files}"):
        load_corpus("wikipedia")


def test_other_tokens_have_another_fingerprint(tmp_path: Path) -> None:
    tokens = np.arange(4000, dtype=np.uint16) % 7
    first = load_corpus(str(write(tmp_path / "a.bin", tokens))).fingerprint
    tokens[-1] += 1
    assert load_corpus(str(write(tmp_path / "b.bin", tokens))).fingerprint != first


def test_the_markov_source_needs_more_than_its_last_symbol() -> None:
    """What only the two last symbols tell is worth learning: else a model's blocks would have nothing to do."""
    corpus = load_corpus("markov")
    assert corpus.entropy is not None
    assert corpus.entropy < bigram_entropy(corpus) - 0.4
    assert bigram_entropy(corpus) < np.log(corpus.vocab)


def test_bigram_entropy_of_known_sources() -> None:
    cycle = Corpus(name="cycle", train=np.arange(400, dtype=np.uint16) % 4, heldout=np.zeros(9, np.uint16), vocab=5)
    assert bigram_entropy(cycle) == pytest.approx(0)
    coin = np.random.default_rng(0).integers(0, 2, 20_000).astype(np.uint16)
    fair = Corpus(name="coin", train=coin, heldout=coin[:9], vocab=2)
    assert bigram_entropy(fair) == pytest.approx(np.log(2), abs=1e-3)
