"""What a forward pass leaves behind: in its input, in buffers, and for a captured graph."""

import logging

import torch

from mue_check.conformance.case import Case
from mue_check.conformance.registry import Finding, check, failed, passed, skipped


@check(
    "input-mutation",
    law="tokens are read, never written",
    source="huggingface/transformers #33969",
)
def input_mutation(case: Case) -> Finding:
    """Compare the tokens before and after, in both modes."""
    for train in (False, True):
        built, x = case.build(train=train), case.tokens()
        before = x.clone()
        built.call(x)
        apart = (x - before).abs().flatten(1).amax(1)
        if not bool((x == before).all()):
            mode = "training" if train else "evaluation"
            return failed(
                f"in {mode} mode a forward pass changes its input by up to {float(apart.max()):.3g}",
                worst=f"token {int(apart.argmax())}",
                causes=(12,),
            )
    return passed("unchanged in both modes")


@check(
    "micro-batches",
    law="state after two micro-batches is the state after the whole batch: counters add up, biases wait for the step",
    source="pytorch/torchtitan PR#1304",
)
def micro_batches(case: Case) -> Finding:
    """Compare every buffer after two halves and after the whole, in training mode."""
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
        other = after[name]
        if buffer.shape != other.shape or not torch.allclose(buffer.double(), other.double(), rtol=1e-5, atol=1e-7):
            apart = (
                float((buffer.double() - other.double()).abs().max()) if buffer.shape == other.shape else float("inf")
            )
            return failed(
                f"buffer {name} differs by up to {apart:.3g} between one batch and two micro-batches of it",
                worst=name,
                causes=(19,),
            )
    changed = [n for n, b in whole.module.named_buffers() if not torch.equal(b, before[n])]
    return passed(f"{', '.join(changed)} add up" if changed else "buffers wait for the optimizer's step")


@check(
    "capture",
    law="no operation waits for values: the forward pass can be captured in a graph",
    source="CUDA graphs; torch.compile(fullgraph=True)",
    severity="should",
    once=True,
)
def capture(case: Case) -> Finding:
    """Run on fake tensors, which have shapes and no values."""
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

    built, x = case.build(), case.tokens()
    log = logging.getLogger("torch._subclasses.fake_tensor")
    try:
        log.disabled = True  # an operation that it does not know fills a screen
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            built.call(mode.from_tensor(x))
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        return failed(f"{error.func} needs values that a graph does not have")
    except Exception as error:  # fake tensors do not know every operation
        return skipped(f"not known on fake tensors: {type(error).__name__}")
    finally:
        log.disabled = False
    return passed("no operation needs values")
