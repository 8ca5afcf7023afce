"""What is left of a run that has begun: ``python -m mue_check.cost.forecast ARGUMENTS`` prints JSON by test.

The run's own process asks for it (``mue_check.suite.progress``), and shows how far it is.
"""

import json
import sys
from collections.abc import Mapping, Sequence

from mue_check.cost.calibration import Calibration, kept_calibration
from mue_check.cost.dry_run import dry_run
from mue_check.cost.timing import machine_of
from mue_check.cost.work import Work, batch_work
from mue_check.tiers import Tier


def forecast(arguments: Sequence[str]) -> Mapping[str, tuple[int, float]]:
    """By the id of each test, the cells that are not stored, and their cost: seconds, or FLOP on an unknown machine."""
    run = dry_run(arguments)
    calibration = _calibration(run.settings.tier)
    found = {}
    for test in run.tests:
        work = sum(map(batch_work, test.new.batches), Work())
        cost = calibration.seconds(work) if calibration else work.flop
        found[test.test] = (sum(map(len, test.new.batches)), cost)
    return found


def _calibration(tier: Tier) -> Calibration | None:
    """That of an earlier plan: timing this machine now would slow down the run."""
    try:
        return kept_calibration(machine_of(tier.device, tier.precision))
    except RuntimeError:  # it has no such device
        return None


if __name__ == "__main__":
    print(json.dumps(forecast(sys.argv[1:])))
