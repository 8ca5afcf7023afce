"""Does it run: everything else rests on this."""

import contextlib
import io
import random

import numpy as np
import torch

from mue_check.conformance.case import Case
from mue_check.conformance.registry import Finding, check, failed, passed
from mue_check.routing.adapter import leaves_of


@check(
    "runs",
    law="the module is built, takes tokens, and returns finite weights on their device, in float32 for float32",
    source="the published signatures",
)
def runs(case: Case) -> Finding:
    """Build, call, and look at what came back."""
    built, x = case.build(), case.tokens()
    if case.candidate.kind == "block":
        y = built.output(x)
        if y.dtype != x.dtype:
            return failed(f"the output is {y.dtype} for {x.dtype} tokens")
        if y.device != x.device:
            return failed(f"the output lies on {y.device}, the tokens on {x.device}")
        if not bool(y.isfinite().all()):
            return failed("the output is not finite", worst=_first_bad(y))
        # one expert's output may be computed in bfloat16; a weighted sum of two then has more digits
        rounded = case.shape.activated > 1 and bool(y.any()) and torch.equal(y, y.bfloat16().to(y.dtype))
        if rounded:
            return failed("the output for float32 tokens has the digits of bfloat16 alone: what is it added up in?")
        case.learn()
        said = (
            "" if case.found.layout is None else f"; routed by {case.found.router}, which returns {case.found.layout}"
        )
        return passed(f"output {list(y.shape)}{said}")
    returned, size = built.routed(x)
    elsewhere = [leaf.device for _, leaf in leaves_of(returned, size) if leaf.device != x.device]
    if elsewhere:
        return failed(f"it returns tensors on {elsewhere[0]}, the tokens lie on {x.device}")
    routing = built.route(x)
    weights = routing.combine
    if weights.dtype != torch.float32:
        return failed(f"the weights are {weights.dtype} for float32 tokens")
    if not bool(weights.isfinite().all()):
        return failed("weights are not finite", worst=_first_bad(weights))
    return passed(f"returns {case.found.layout}")


@check(
    "quiet",
    law="a forward pass prints nothing",
    source="a million steps of log",
    severity="should",
    once=True,
)
def quiet(case: Case) -> Finding:
    """Listen to one forward pass."""
    built, said = case.build(), io.StringIO()
    with contextlib.redirect_stdout(said):
        built.call(case.tokens())
    text = said.getvalue().strip()
    return failed(f"prints {text.splitlines()[0][:80]!r}") if text else passed("nothing was printed")


@check(
    "global-state",
    law="a forward pass in eval mode leaves random generators, default type and gradient mode as they were",
    source="two arms of a comparison share them",
    severity="should",
    once=True,
)
def global_state(case: Case) -> Finding:
    """Compare what is global before and after."""
    built = case.build()

    def state() -> dict[str, object]:
        return {
            "torch's generator": torch.random.get_rng_state().tolist(),
            "Python's generator": random.getstate(),
            "numpy's generator": str(np.random.get_state()),  # noqa: NPY002  (the global one is what we look at)
            "the default dtype": torch.get_default_dtype(),
            "the gradient mode": torch.is_grad_enabled(),
        }

    before = state()
    built.call(case.tokens())
    changed = [name for name, value in state().items() if value != before[name]]
    with torch.no_grad():
        built.call(case.tokens())
        if torch.is_grad_enabled():
            changed.append("the gradient mode inside of no_grad")
    return failed(f"changed {', '.join(changed)}") if changed else passed("as they were")


def _first_bad(tensor: torch.Tensor) -> str:
    return f"token {int((~tensor.isfinite()).flatten(1).any(1).nonzero()[0])}"
