"""Does the candidate run, and what does a forward pass change? Every other check relies on this."""

import contextlib
import io
import logging
import random

import numpy as np
import torch
from torch import Tensor

from mue_check.conformance.case import BuiltCandidate, ConformanceCase
from mue_check.conformance.check import Check, CheckOutcome, failed, passed, skipped
from mue_check.conformance.checks.compare import first_token
from mue_check.conformance.reading import route
from mue_check.conformance.router_probe import layout_of, router_name, router_output
from mue_check.conformance.torch_calls import without_noise
from mue_check.global_state import preserved_globals
from mue_check.plain import unregistered
from mue_check.routing.adapter import leaves_of


def runs(case: ConformanceCase) -> CheckOutcome:
    """The module builds, takes tokens, and returns finite values on their device, in float32 for float32 tokens.

    What it trains are its own parameters.
    """
    return _router_runs(case) if case.is_router else _block_runs(case)


def _outside(built: BuiltCandidate, *results: Tensor) -> CheckOutcome | None:
    """A failure if the results depend on a trained tensor that is no parameter of the module."""
    stray = unregistered(built.module, *results)
    if not stray:
        return None
    return failed(
        f"the result depends on a trained tensor {list(stray[0].shape)} that is no parameter of the module: held in a "
        "plain list, an attribute or a closure it is not moved, saved or given to an optimizer"
    )


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
    outside = _outside(built, y)
    if outside is not None:
        return outside
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
    outside = _outside(built, *(leaf for _, leaf in leaves_of(returned, size)))
    return outside or passed(f"returns {layout_of(case)}")


def quiet(case: ConformanceCase) -> CheckOutcome:
    """A forward pass prints nothing."""
    built, printed = case.build(), io.StringIO()
    with contextlib.redirect_stdout(printed):
        built.call(case.tokens())
    text = printed.getvalue().strip()
    return failed(f"prints {text.splitlines()[0][:80]!r}") if text else passed("nothing was printed")


def global_state(case: ConformanceCase) -> CheckOutcome:
    """A forward pass changes no setting of torch and no gradient mode, seeds no generator, and in eval draws nothing.

    Drawing what changes no result is a warning; what changes it also fails the check deterministic.
    """
    x, drawn = case.tokens(), list[str]()
    for train in (True, False):
        built, ends = case.build(train=train), []
        for seed in (1, 2):
            with preserved_globals() as changes:
                torch.default_generator.manual_seed(seed)
                random.seed(seed)
                np.random.seed(seed)  # noqa: NPY002  (the global one is what we look at)
                before = _generators()
                built.call(x)
                ends.append(_generators())
                changed = [] if torch.is_grad_enabled() else ["the gradient mode"]
            changed += changes.torch
            if changed:
                return failed(f"changed {', '.join(changed)}")
            drawn = [] if train else [name for name, state in ends[-1].items() if state != before[name]]
        seeded = [name for name, state in ends[0].items() if state == ends[1][name]]
        if seeded:
            mode = "training" if train else "evaluation"
            return failed(
                f"seeds {', '.join(seeded)} in {mode} mode: every later draw repeats, of dropout and data too"
            )
    with torch.no_grad():
        built.call(x)
        if torch.is_grad_enabled():
            return failed("changed the gradient mode inside no_grad")
    return failed(f"draws from {', '.join(drawn)}", severity="should") if drawn else passed("unchanged")


def _generators() -> dict[str, object]:
    return {
        "torch's generator": torch.random.get_rng_state().tolist(),
        "Python's generator": random.getstate(),
        "numpy's generator": str(np.random.get_state()),  # noqa: NPY002
    }


def input_mutation(case: ConformanceCase) -> CheckOutcome:
    """A forward pass does not change its input."""
    for train in (False, True):
        built, x = case.build(train=train), case.tokens()
        before = x.clone()
        built.call(x)
        change = (x - before).abs().flatten(1).amax(1)
        if not bool((x == before).all()):
            mode = "training" if train else "evaluation"
            return failed(
                f"in {mode} mode a forward pass changes its input by up to {float(change.max()):.3g}",
                worst=f"token {int(change.argmax())}",
                causes=(12,),
            )
    return passed("unchanged in both modes")


def eval_state(case: ConformanceCase) -> CheckOutcome:
    """A forward pass in eval mode changes no buffer and no parameter."""
    built = case.build()
    with torch.no_grad():
        built.call(case.tokens(1))  # tables may be made in the first call
        before = {name: tensor.clone() for name, tensor in _state(built)}
        built.call(case.tokens())
    for name, tensor in _state(built):
        old = before.get(name)
        if old is None or old.shape != tensor.shape:
            moved = "is made or resized"
        elif not torch.equal(old.nan_to_num(), tensor.nan_to_num()):
            moved = f"moves by up to {float((tensor.double() - old.double()).abs().nan_to_num().max()):.3g}"
        else:
            continue
        return failed(
            f"{name} {moved} in a forward pass in eval mode: validation and serving change the module",
            worst=name,
            causes=(29,),
        )
    return passed(f"{len(before)} buffers and parameters stay" if before else "no buffers or parameters")


def _state(built: BuiltCandidate) -> list[tuple[str, Tensor]]:
    return [*built.module.named_buffers(), *((n, p.detach()) for n, p in built.module.named_parameters())]


def micro_batches(case: ConformanceCase) -> CheckOutcome:
    """Buffers are equal after one batch and after its two halves: counters add up, biases wait for the step.

    So are parameters, which a bias may be too.
    """
    if case.shape.tokens < 2:
        return skipped("one token cannot be split")
    whole, halves, x = case.build(train=True), case.build(train=True), case.tokens()
    before = {name: tensor.clone() for name, tensor in _state(whole)}
    halves.module.load_state_dict(whole.module.state_dict())
    with without_noise(whole.module), without_noise(halves.module):
        whole.call(x)
        for part in (x[: len(x) // 2], x[len(x) // 2 :]):
            halves.call(part)
    after = dict(_state(halves))
    for name, tensor in _state(whole):
        first, second = tensor.double(), after[name].double()
        if first.shape != second.shape or not torch.allclose(first, second, rtol=1e-5, atol=1e-7):
            largest = float((first - second).abs().max()) if first.shape == second.shape else float("inf")
            return failed(
                f"{name} differs by up to {largest:.3g} between one batch and its two halves",
                worst=name,
                causes=(19,),
            )
    changed = [n for n, t in _state(whole) if n not in before or not torch.equal(t, before[n])]
    return passed(f"{', '.join(changed)} add up" if changed else "buffers wait for the optimizer step")


def capture(case: ConformanceCase) -> CheckOutcome:
    """A graph can capture the forward pass: no operation depends on the values of tensors.

    It runs on fake tensors, which have shapes and no values.
    """
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

    built, x = case.build(), case.tokens()
    log = logging.getLogger("torch._subclasses.fake_tensor")
    try:
        log.disabled = True  # an unsupported operation logs a screenful
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            built.call(mode.from_tensor(x))
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        return failed(f"{error.func} depends on values")
    except Exception as error:  # fake tensors do not support every operation
        return skipped(f"fake tensors do not support it: {type(error).__name__}")
    finally:
        log.disabled = False
    return passed("no operation depends on values")


CHECKS = (
    Check(run=runs, source="the published signatures"),
    Check(run=quiet, source="a million steps of log", severity="should", once=True),
    Check(run=global_state, source="two arms of a comparison share them", once=True),
    Check(run=input_mutation, source="huggingface/transformers #33969"),
    Check(run=eval_state, source="PrimeIntellect-ai/prime-rl PR#2953", since="0.4", once=True),
    Check(run=micro_batches, source="pytorch/torchtitan PR#1304"),
    Check(run=capture, source="CUDA graphs; torch.compile(fullgraph=True)", severity="should", once=True),
)
