"""Does the candidate run, and without side effects? Every other check relies on this."""

import contextlib
import io
import random

import numpy as np
import torch

from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.check import Check, CheckOutcome, failed, passed
from mue_check.conformance.checks.compare import first_token
from mue_check.conformance.reading import route
from mue_check.conformance.router_probe import layout_of, router_name, router_output
from mue_check.global_state import preserved_globals
from mue_check.routing.adapter import leaves_of


def runs(case: ConformanceCase) -> CheckOutcome:
    """The module builds, takes tokens, and returns finite values on their device, in float32 for float32 tokens."""
    return _router_runs(case) if case.is_router else _block_runs(case)


def _block_runs(case: ConformanceCase) -> CheckOutcome:
    built, x = case.build(), case.tokens()
    y = built.output(x)
    if y.dtype != x.dtype:
        return failed(f"the output is {y.dtype} for {x.dtype} tokens")
    if y.device != x.device:
        return failed(f"the output is on {y.device}, the tokens are on {x.device}")
    if not bool(y.isfinite().all()):
        return failed("the output is not finite", worst=first_token(~y.isfinite()))
    # one expert's output may be computed in bfloat16, but a weighted sum of two has more digits
    if case.shape.activated > 1 and bool(y.any()) and torch.equal(y, y.bfloat16().to(y.dtype)):
        return failed("the output for float32 tokens has only the digits of bfloat16: in what dtype is it summed?")
    layout = layout_of(case)
    router = "" if layout is None else f"; routed by {router_name(case)}, which returns {layout}"
    return passed(f"output {list(y.shape)}{router}")


def _router_runs(case: ConformanceCase) -> CheckOutcome:
    built, x = case.build(), case.tokens()
    returned, size = router_output(built, x)
    elsewhere = [leaf.device for _, leaf in leaves_of(returned, size) if leaf.device != x.device]
    if elsewhere:
        return failed(f"it returns tensors on {elsewhere[0]}, the tokens are on {x.device}")
    weights = route(built, x).combine
    if weights.dtype != torch.float32:
        return failed(f"the weights are {weights.dtype} for float32 tokens")
    if not bool(weights.isfinite().all()):
        return failed("weights are not finite", worst=first_token(~weights.isfinite()))
    return passed(f"returns {layout_of(case)}")


def quiet(case: ConformanceCase) -> CheckOutcome:
    """A forward pass prints nothing."""
    built, printed = case.build(), io.StringIO()
    with contextlib.redirect_stdout(printed):
        built.call(case.tokens())
    text = printed.getvalue().strip()
    return failed(f"prints {text.splitlines()[0][:80]!r}") if text else passed("nothing was printed")


def global_state(case: ConformanceCase) -> CheckOutcome:
    """A forward pass in eval mode does not change the random generators, the gradient mode or the settings of torch."""
    built = case.build()

    def state() -> dict[str, object]:
        return {
            "torch's generator": torch.random.get_rng_state().tolist(),
            "Python's generator": random.getstate(),
            "numpy's generator": str(np.random.get_state()),  # noqa: NPY002  (the global one is what we look at)
            "the gradient mode": torch.is_grad_enabled(),
        }

    before = state()
    with preserved_globals() as changes:
        built.call(case.tokens())
        changed = [name for name, value in state().items() if value != before[name]]
    changed += changes.torch
    with torch.no_grad():
        built.call(case.tokens())
        if torch.is_grad_enabled():
            changed.append("the gradient mode inside no_grad")
    return failed(f"changed {', '.join(changed)}") if changed else passed("unchanged")


CHECKS = (
    Check(run=runs, source="the published signatures"),
    Check(run=quiet, source="a million steps of log", severity="should", once=True),
    Check(run=global_state, source="two arms of a comparison share them", severity="should", once=True),
)
