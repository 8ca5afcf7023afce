"""What a forward pass changes: its input and its buffers; and whether a graph can capture it."""

import logging

import torch

from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.check import Check, CheckOutcome, failed, passed, skipped


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


def micro_batches(case: ConformanceCase) -> CheckOutcome:
    """Buffers are equal after one batch and after its two halves: counters add up, biases wait for the step."""
    if case.shape.tokens < 2:
        return skipped("one token cannot be split")
    whole, halves, x = case.build(train=True), case.build(train=True), case.tokens()
    if not list(whole.module.buffers()):
        return skipped("no buffers")
    before = {name: buffer.clone() for name, buffer in whole.module.named_buffers()}
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
    Check(run=micro_batches, source="pytorch/torchtitan PR#1304"),
    Check(run=capture, source="CUDA graphs; torch.compile(fullgraph=True)", severity="should", once=True),
)
