"""Does the router learn: the gradient of a task loss reaches it, and is the right one."""

import torch
from torch import Tensor, nn

from mue_check.conformance.block_probe import opened
from mue_check.conformance.case import Built, Case
from mue_check.conformance.registry import Finding, check, failed, passed, skipped, unknown
from mue_check.routing.canonical import Routing

_NOTHING = 1e-6
_STEP = 3e-3
"""Of the parameters' size: far above rounding, as many gates compute in float32 whatever the type around them."""
_TOLERANCE = 0.02
_SEVERAL = 16
_JUMP = 0.1


@check(
    "router-gradient",
    law="the gradient of a task loss on the weights reaches the router's parameters",
    source="NVIDIA/Megatron-LM #894",
)
def router_gradient(case: Case) -> Finding:
    """Draw a gradient for each weight and look at what arrives."""
    if case.shape.activated == 1 and constant_at_one(case):
        return skipped("normalized weights are constant at a = 1: see router-gradient-top1")
    return _reached(case, causes=(1, 2))


@check(
    "router-gradient-top1",
    law="at a = 1 the router is still trained",
    source="jingyaogong/minimind #858",
    severity="should",
)
def router_gradient_top1(case: Case) -> Finding:
    """The same where each token takes one expert and the claim makes its weight constant."""
    if case.shape.activated != 1 or not constant_at_one(case):
        return skipped("asked at a = 1 of weights that are normalized")
    return _reached(case, causes=(2,))


@check(
    "router-gradient-exact",
    law="the router's gradient equals finite differences of the loss",
    source="calculus",
)
def router_gradient_exact(case: Case) -> Finding:
    """One random direction in the router's parameters, over tokens whose choice does not change along it."""
    dtype = _exact_dtype(case)
    built, x = case.build(dtype=dtype), case.tokens()
    trained = _trained(built)
    if not trained:
        return skipped("no parameters that train: see router-gradient")
    generator = torch.Generator().manual_seed(31 + case.seed)
    directions = [torch.randn(p.shape, generator=generator).to(p) for p in trained]
    scale = max(float(p.detach().norm()) for p in trained) / max(float(v.norm()) for v in directions)
    step = _STEP * max(scale, 1e-3)
    task = _task(built.route(x), generator).to(dtype)

    here = built.route(x)
    if not here.combine.requires_grad:
        return skipped("no gradient at all: see router-gradient")
    mask = here.mask

    def difference(step: float) -> tuple[Tensor, Tensor]:
        """([T] slope of the loss, [T] bool: the choice stays) along the direction."""
        ends = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                for p, v in zip(trained, directions, strict=True):
                    p.data.add_(sign * step * v)  # whatever the candidate does to the gradient mode
                try:
                    ends.append(built.route(x))
                finally:
                    for p, v in zip(trained, directions, strict=True):
                        p.data.sub_(sign * step * v)
        same = (ends[0].mask == ends[1].mask) & (ends[0].mask == mask)
        steady = same.all().expand(len(x)) if case.claim.kind == "expert_choice" else same.all(-1)
        slope = ((ends[0].combine - ends[1].combine).to(dtype) * task).double().sum(-1) / (2 * step)
        return slope, steady

    slope, steady = difference(step)
    found = _compared(trained, directions, built.route(x).combine, task, slope, steady, step)
    if found.status == "failed":
        # a weight may jump where the choice stays (SparseMixer's threshold): there is no slope at a jump
        finer, still = difference(step / 4)
        smooth = steady & still & ((slope - finer).abs() <= _JUMP * (slope.abs() + finer.abs()))
        if bool((smooth != steady).any()):
            found = _compared(trained, directions, built.route(x).combine, task, slope, smooth, step)
    return found


def _compared(
    trained: list[nn.Parameter],
    directions: list[Tensor],
    combine: Tensor,
    task: Tensor,
    slope: Tensor,
    steady: Tensor,
    step: float,
) -> Finding:
    if not bool(steady.any()):
        return skipped("no token keeps its choice along the direction")
    loss = (combine.to(task.dtype) * task)[steady].sum()
    given = torch.autograd.grad(loss, trained, allow_unused=True)
    gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(trained, given, strict=True)]
    along = sum(float((g * v).sum()) for g, v in zip(gradients, directions, strict=True))
    measured = float(slope[steady].sum())
    size = sum(float((g**2).sum()) for g in gradients) ** 0.5
    floor = size * max(float(v.norm()) for v in directions)
    # a direction may be nearly at right angles to the gradient: compare with what another would have given
    typical = floor / max(sum(p.numel() for p in trained), 1) ** 0.5
    # what rounding of the weights alone makes of a difference
    noise = torch.finfo(torch.float32).eps * float(task[steady].abs().sum()) / step
    slack = _TOLERANCE * max(abs(along), typical) + noise
    said = f"autograd {along:.5g}, finite differences {measured:.5g} along one direction ({int(steady.sum())} tokens)"
    if abs(along - measured) > slack:
        ratio = along / measured if measured else float("inf")
        return failed(f"{said}: a ratio of {ratio:.3g}", causes=(21,))
    return passed(said)


def _reached(case: Case, causes: tuple[int, ...]) -> Finding:
    # a gate that is cut off hard may be flat at a token or two
    built, x = case.build(), case.tokens(count=max(case.shape.tokens, _SEVERAL))
    trained = _trained(built)
    if not trained:
        frozen = [n for n, p in (built.router or built.module).named_parameters() if not p.requires_grad]
        if built.router is not None and frozen:
            return failed("none of the router's parameters requires a gradient", worst=frozen[0], causes=causes)
        return unknown("the router has no parameters, so that nothing of it is learned; is a weight a buffer?")
    routing = built.route(x)
    if not routing.combine.requires_grad:
        return failed("the weights carry no gradient: they are cut from the graph", causes=causes)
    task = _task(routing, torch.Generator().manual_seed(17 + case.seed))
    torch.autograd.backward((routing.combine * task).sum())
    largest = max((float(p.grad.abs().max()) for p in trained if p.grad is not None), default=0.0)
    if not largest > _NOTHING:
        return failed(
            f"the router's largest gradient is {largest:.2g} for gradients of order 1 on its weights", causes=causes
        )
    return passed(f"largest gradient {largest:.3g} for gradients of order 1 on the weights")


def constant_at_one(case: Case) -> bool:
    """Whether a = 1 is a size that the router may never be meant for: not claimed, and not named by the user."""
    return not case.chosen and case.claim.expected_sum() is not None and case.claim.top_k is None


def _trained(built: Built) -> list[nn.Parameter]:
    if built.router is not None:
        return [p for p in built.router.parameters() if p.requires_grad]
    named = dict(built.module.named_parameters())
    return [named[name] for name in opened(built, stir=False).groups["router"] if named[name].requires_grad]


def _task(routing: Routing, generator: torch.Generator) -> Tensor:
    return torch.randn(routing.combine.shape, generator=generator).to(routing.combine)


def _exact_dtype(case: Case) -> torch.dtype:
    """float64 where the router runs in it, else float32."""
    try:
        case.build(dtype=torch.float64).route(case.tokens().double())
    except Exception:  # a router that mixes types cannot run in float64, which is no fault
        return torch.float32
    return torch.float64
