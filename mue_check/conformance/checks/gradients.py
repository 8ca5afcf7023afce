"""Does the router learn? A task's gradient must reach it, and must be correct."""

import torch
from torch import Tensor, nn

from mue_check.conformance.block_probe import probe_built
from mue_check.conformance.case import BuiltCandidate, ConformanceCase
from mue_check.conformance.check import Check, CheckOutcome, failed, passed, skipped, unknown
from mue_check.conformance.checks.auxiliary_loss import loss_of_forward
from mue_check.conformance.reading import read_logits, route
from mue_check.conformance.router_probe import router_of, router_output, selection_bias
from mue_check.errors import ClaimError
from mue_check.routing.adapter import leaves_of
from mue_check.routing.canonical import Routing

_NOTHING = 1e-6
_STEP = 3e-3
"""Relative to the size of the parameters: far above rounding, since many gates compute in float32 in any model."""
_TOLERANCE = 0.02
_SEVERAL = 16
_CROWD = 1024
"""Tokens among which some logits nearly tie."""
_JUMP = 0.1
_STIRRED = 0.05
"""Noise on parameters that may start at zero, such as a shared expert's last matrix."""


def router_gradient(case: ConformanceCase) -> CheckOutcome:
    """The gradient of a task loss on the weights reaches the router's parameters."""
    if case.shape.activated == 1 and constant_at_top1(case):
        return skipped("normalized weights are constant at a = 1: see router-gradient-top1")
    return _reaches_router(case, causes=(1, 2))


def router_gradient_top1(case: ConformanceCase) -> CheckOutcome:
    """At a = 1 the router is still trained."""
    if case.shape.activated != 1 or not constant_at_top1(case):
        return skipped("applies at a = 1 to weights that are normalized")
    return _reaches_router(case, causes=(2,))


def router_gradient_exact(case: ConformanceCase) -> CheckOutcome:
    """The router's gradient equals finite differences of the loss.

    Measured along one random direction, over the tokens whose selection does not change along it.
    """
    dtype = _exact_dtype(case)
    built, x = case.build(dtype=dtype), case.tokens()
    trained = _trained(built)
    if not trained:
        return skipped("no trained parameters: see router-gradient")
    generator = torch.Generator().manual_seed(31 + case.seed)
    directions = [torch.randn(p.shape, generator=generator).to(p) for p in trained]
    scale = max(float(p.detach().norm()) for p in trained) / max(float(v.norm()) for v in directions)
    step = _STEP * max(scale, 1e-3)
    task = _random_gradient(route(built, x), generator).to(dtype)
    plain = route(built, x)
    if not plain.combine.requires_grad:
        return skipped("no gradient at all: see router-gradient")

    def central_difference(step: float) -> tuple[Tensor, Tensor]:
        """([T] slope of the loss along the direction, [T] bool: the selection stays the same)."""
        ends = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                for p, v in zip(trained, directions, strict=True):
                    p.data.add_(sign * step * v)  # even if the candidate changes the gradient mode
                try:
                    ends.append(route(built, x))
                finally:
                    for p, v in zip(trained, directions, strict=True):
                        p.data.sub_(sign * step * v)
        same = (ends[0].mask == ends[1].mask) & (ends[0].mask == plain.mask)
        steady = same.all().expand(len(x)) if case.claim.kind == "expert_choice" else same.all(-1)
        slope = ((ends[0].combine - ends[1].combine).to(dtype) * task).double().sum(-1) / (2 * step)
        return slope, steady

    def compared(slope: Tensor, steady: Tensor, step: float) -> CheckOutcome:
        return _compare_slopes(trained, directions, route(built, x).combine, task, slope, steady, step)

    slope, steady = central_difference(step)
    outcome = compared(slope, steady, step)
    if outcome.status == "failed":
        # a weight may jump while the selection stays (SparseMixer's threshold), and has no slope there
        finer, still = central_difference(step / 4)
        smooth = steady & still & ((slope - finer).abs() <= _JUMP * (slope.abs() + finer.abs()))
        # a steep gate bends within the step: extrapolated to a step of 0, where the error goes with its square
        outcome = compared(finer + (finer - slope) / 15, smooth, step / 4)
    return outcome


def _compare_slopes(
    trained: list[nn.Parameter],
    directions: list[Tensor],
    combine: Tensor,
    task: Tensor,
    slope: Tensor,
    steady: Tensor,
    step: float,
) -> CheckOutcome:
    if not bool(steady.any()):
        return skipped("no token keeps its selection along the direction")
    loss = (combine.to(task.dtype) * task)[steady].sum()
    found = torch.autograd.grad(loss, trained, allow_unused=True)
    gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(trained, found, strict=True)]
    autograd = sum(float((g * v).sum()) for g, v in zip(gradients, directions, strict=True))
    measured = float(slope[steady].sum())
    size = sum(float((g**2).sum()) for g in gradients) ** 0.5 * max(float(v.norm()) for v in directions)
    # the direction may be nearly orthogonal to the gradient: compare with the slope along a typical one
    typical = size / max(sum(p.numel() for p in trained), 1) ** 0.5
    # the error of the difference from rounding of the weights alone
    noise = torch.finfo(torch.float32).eps * float(task[steady].abs().sum()) / step
    text = (
        f"autograd {autograd:.5g}, finite differences {measured:.5g} along one direction ({int(steady.sum())} tokens)"
    )
    if abs(autograd - measured) > _TOLERANCE * max(abs(autograd), typical) + noise:
        ratio = autograd / measured if measured else float("inf")
        return failed(f"{text}: a ratio of {ratio:.3g}", causes=(21,))
    return passed(text)


def _reaches_router(case: ConformanceCase, causes: tuple[int, ...]) -> CheckOutcome:
    # a gate with a hard cutoff may be flat at a token or two
    built, x = case.build(), case.tokens(count=max(case.shape.tokens, _SEVERAL))
    trained, router = _trained(built), router_of(built)
    if not trained:
        frozen = [] if router is None else [n for n, p in router.named_parameters() if not p.requires_grad]
        if frozen:
            return failed("none of the router's parameters requires a gradient", worst=frozen[0], causes=causes)
        outcome = unknown if read_logits(built, x) is None else failed  # a hash of the tokens has no logits
        return outcome("the router has no parameters, so it cannot learn; is a weight stored as a buffer?")
    largest = 0.0
    for tokens in (x, case.tokens(count=_CROWD)):  # SparseMixer's weights have a gradient at near ties only
        routing = route(built, tokens)
        if not routing.combine.requires_grad:
            return failed("the weights carry no gradient: they are detached from the graph", causes=causes)
        task = _random_gradient(routing, torch.Generator().manual_seed(17 + case.seed))
        torch.autograd.backward((routing.combine * task).sum())
        largest = max((float(p.grad.abs().max()) for p in trained if p.grad is not None), default=0.0)
        if largest > _NOTHING:
            break
    if not largest > _NOTHING:
        return failed(
            f"the router's largest gradient is {largest:.2g} for gradients of order 1 on its weights", causes=causes
        )
    return passed(f"largest gradient {largest:.3g} for gradients of order 1 on the weights")


def router_parameters(case: ConformanceCase) -> CheckOutcome:
    """In training mode every trained parameter gets a gradient from something that the router or the block returns."""
    built, x = case.build(train=True), case.tokens(count=_CROWD)
    router, bias = router_of(built), selection_bias(built)
    if case.shape.activated == 1 and constant_at_top1(case):
        return skipped("normalized weights are constant at a = 1: see router-gradient-top1")
    judged = _all_but_experts(built)
    trained = {n: p for n, p in built.module.named_parameters() if p.requires_grad and n in judged}
    if bias is not None:  # moved by the load, not by a gradient
        trained = {n: p for n, p in trained.items() if not (n == bias[0] or bias[0].endswith(f".{n}"))}
    if not trained:
        return skipped("no trained parameters: see router-gradient")
    generator = torch.Generator().manual_seed(17 + case.seed)
    with torch.no_grad():  # behind a zero nothing has a gradient
        for p in trained.values():
            p.add_(_STIRRED * torch.randn(p.shape, generator=generator).to(p))
    # copies, because jitter may change what it is given
    outputs = [t for _, t in leaves_of(built.call(x.clone()), built.size(x)) if t.requires_grad]
    if not case.is_router and router is not None:
        outputs += [t for _, t in leaves_of(*router_output(built, x.clone())) if t.requires_grad]
    named = case.claim.auxiliary_loss
    loss = loss_of_forward(built, x.clone(), named) if named is not None and ":" not in named else None
    outputs += [loss] if loss is not None and loss.requires_grad else []
    if not outputs:
        return skipped("no gradient at all: see router-gradient")
    tasks = [torch.randn(t.shape, generator=generator).to(t) for t in outputs]
    found = torch.autograd.grad(outputs, list(trained.values()), tasks, allow_unused=True)
    idle = [n for (n, p), g in zip(trained.items(), found, strict=True) if p.numel() and (g is None or not g.any())]
    if idle:
        return failed(f"nothing that it returns depends on {', '.join(idle)}", worst=idle[0], causes=(31,))
    return passed(f"{len(trained)} parameters have a gradient")


def _all_but_experts(built: BuiltCandidate) -> set[str]:
    """Names of a router's parameters, or of a block's without those of experts, of which some may get no token.

    Of a block whose experts cannot be read, those of its router.
    """
    names = {name for name, _ in built.module.named_parameters()}
    if built.case.is_router:
        return names
    try:
        return names - set(probe_built(built, randomize=False).groups["experts"])
    except ClaimError:
        router = router_of(built)
        kept = set() if router is None else {id(p) for p in router.parameters()}
        return {name for name, p in built.module.named_parameters() if id(p) in kept}


def constant_at_top1(case: ConformanceCase) -> bool:
    """Whether the claimed sum makes the weight constant at a = 1, and nobody asked for that size."""
    return not case.chosen and case.claim.expected_sum() is not None and case.claim.top_k is None


def _trained(built: BuiltCandidate) -> list[nn.Parameter]:
    router = router_of(built)
    if router is not None:
        return [p for p in router.parameters() if p.requires_grad]
    named = dict(built.module.named_parameters())
    return [named[n] for n in probe_built(built, randomize=False).groups["router"] if named[n].requires_grad]


def _random_gradient(routing: Routing, generator: torch.Generator) -> Tensor:
    return torch.randn(routing.combine.shape, generator=generator).to(routing.combine)


def _exact_dtype(case: ConformanceCase) -> torch.dtype:
    """float64 if the router runs in it, else float32."""
    try:
        route(case.build(dtype=torch.float64), case.tokens().double())
    except Exception:  # a router that mixes dtypes cannot run in float64, and need not
        return torch.float32
    return torch.float64


CHECKS = (
    Check(run=router_gradient, source="NVIDIA/Megatron-LM #894"),
    Check(run=router_gradient_top1, source="jingyaogong/minimind #858", severity="should"),
    Check(run=router_gradient_exact, source="calculus"),
    Check(run=router_parameters, source="yfzhang114/SliME #3", since="0.4", once=True),
)
