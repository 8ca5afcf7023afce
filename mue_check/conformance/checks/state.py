"""What a forward pass changes: its input and its buffers; and whether a graph can capture it."""

import logging

import torch
from torch import Tensor

from mue_check.conformance.case import BuiltCandidate, ConformanceCase
from mue_check.conformance.check import Check, CheckOutcome, failed, passed, skipped
from mue_check.conformance.torch_calls import without_noise


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
    """Buffers are equal after one batch and after its two halves: counters add up, biases wait for the step."""
    if case.shape.tokens < 2:
        return skipped("one token cannot be split")
    whole, halves, x = case.build(train=True), case.build(train=True), case.tokens()
    if not list(whole.module.buffers()):
        return skipped("no buffers")
    before = {name: buffer.clone() for name, buffer in whole.module.named_buffers()}
    with without_noise(whole.module), without_noise(halves.module):
        whole.call(x)
        for part in (x[: len(x) // 2], x[len(x) // 2 :]):
            halves.call(part)
    after = dict(halves.module.named_buffers())
    for name, buffer in whole.module.named_buffers():
        first, second = buffer.double(), after[name].double()
        if first.shape != second.shape or not torch.allclose(first, second, rtol=1e-5, atol=1e-7):
            largest = float((first - second).abs().max()) if first.shape == second.shape else float("inf")
            return failed(
                f"buffer {name} differs by up to {largest:.3g} between one batch and its two halves",
                worst=name,
                causes=(19,),
            )
    changed = [n for n, b in whole.module.named_buffers() if not torch.equal(b, before[n])]
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
    Check(run=input_mutation, source="huggingface/transformers #33969"),
    Check(run=eval_state, source="PrimeIntellect-ai/prime-rl PR#2953", since="0.4", once=True),
    Check(run=micro_batches, source="pytorch/torchtitan PR#1304"),
    Check(run=capture, source="CUDA graphs; torch.compile(fullgraph=True)", severity="should", once=True),
)
