"""The child of ``isolate``: loads the candidate, runs the checks, writes one JSON line per answer to a descriptor."""

import contextlib
import ctypes
import json
import os
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

_SET_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of linux/prctl.h."""


def main(descriptor: int, job: dict[str, Any]) -> None:
    """Answer with {"usage": ...} or {"head": ..., "checks": ...}, and then with results."""
    from mue_check.errors import MueCheckError

    _end_with_the_parent()
    with open(descriptor, "w", buffering=1) as out:

        def say(value: dict[str, Any]) -> None:
            out.write(json.dumps(value) + "\n")

        try:
            _run(job, say)
        except MueCheckError as error:
            say({"usage": str(error)})
        out.flush()
    # threads that a candidate has left behind do not matter any more
    os._exit(0)


def _end_with_the_parent() -> None:
    """Be killed when the parent dies: a candidate that hangs would else run on for ever. Linux alone can do that."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, int(signal.SIGKILL))


def _run(job: dict[str, Any], say: Any) -> None:
    import torch

    from mue_check.conformance.case import ConformanceCase
    from mue_check.conformance.check import CheckOutcome
    from mue_check.conformance.describe import describe
    from mue_check.conformance.registry import checks_for
    from mue_check.conformance.runner import Options, preserve_global_state, result_of_case, run_checks, time_limit
    from mue_check.errors import ClaimError
    from mue_check.routing.claim import read_claim
    from mue_check.routing.factory import SHAPES, Shape, load_candidate

    torch.set_num_threads(1)
    device = job["device"]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ClaimError(f"--device {device}: must be cpu, cuda or auto")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ClaimError(f"--device {device}: there is no CUDA device")
    claim = read_claim(Path(job["claim"])) if job["claim"] else None
    checks_for(job["kind"], job["expected"])  # an id that is none is an error
    checks = [c for c in checks_for(job["kind"], job["checks"]) if job["question"] in (None, c.question)]
    if not checks:
        raise ClaimError(f"--only {job['question']}: none of the checks asked for is about that")
    candidate = load_candidate(job["kind"], job["name"], claim)
    options = Options(seeds=job["seeds"], device=device, time_limit=job["time_limit"], rerun_flags=tuple(job["again"]))
    if job["shapes"]:
        options = replace(options, shapes=tuple(Shape(*sizes) for sizes in job["shapes"]))
    waiting = CheckOutcome(status="error", measured="")
    say(
        {
            "head": [f"claim:   {candidate.claim} ({candidate.claimed})"],
            "device": device,
            "checks": {check.id: result_of_case(check, candidate, waiting, options).as_json() for check in checks},
        }
    )
    if job["look"]:
        case = ConformanceCase(
            candidate=candidate,
            shape=candidate.shapes(options.shapes or SHAPES)[0],
            seed=0,
            device=torch.device(device),
        )
        try:
            with preserve_global_state(), time_limit(options.time_limit):
                head = describe(case)
        except BaseException as error:  # whatever it is, a check will say it better
            head = [f"routing: could not be looked at: {type(error).__name__}"]
        say({"head": head})
    for result in run_checks(candidate, checks, options):
        say(result.as_json())


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
