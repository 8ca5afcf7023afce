from pathlib import Path

import pytest

from mue_check.cost.calibration import Calibration, save_calibration
from mue_check.cost.work import PRICED

PRICES = dict.fromkeys(PRICED, 0.0) | {"stacks": 1e-2, "steps": 1e-3, "flop": 1e-11}


@pytest.fixture(scope="session")
def calibration() -> Calibration:
    """Prices of no device: times are then what arithmetic makes them."""
    machine = {"kind": "cpu", "device": "a paper machine", "torch": "0", "code": "0"}
    return Calibration(machine=machine, prices=PRICES, error=1.0, stacks=0)


@pytest.fixture(scope="session")
def calibration_file(calibration: Calibration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibration") / "paper.json"
    save_calibration(calibration, path)
    return path
