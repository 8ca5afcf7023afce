"""The first look, before any check: the candidate is built and called, and what is found is described."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch.nn.parameter import is_lazy

from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.expected_routing import TOLERANCE, infer_gate
from mue_check.conformance.learned import Learned, RouterReading
from mue_check.conformance.reading import route
from mue_check.conformance.router_probe import find_router, selection_bias
from mue_check.conformance.runner import Options, quietly
from mue_check.errors import ClaimError, UnreadableError
from mue_check.global_state import preserved_globals
from mue_check.routing.factory import SHAPES, Candidate, Factory
from mue_check.user_code import TimeLimit, describe_error, one_line, time_limit

_NAMED = 3


def first_look(candidate: Candidate, options: Options, learned: Learned | None = None) -> None:
    """ClaimError, with the line of the user's code, for a candidate of which no check could say anything else."""
    shape = candidate.shapes(options.shapes or SHAPES)[0]
    case = ConformanceCase(
        candidate=candidate, shape=shape, seed=0, device=torch.device(options.device), learned=learned or Learned()
    )
    step = "the factory"
    try:
        with preserved_globals(), quietly(), time_limit(options.time_limit):
            with _marked_memory():
                module = candidate.build(shape)
            parameters = [(n, p) for n, p in module.named_parameters() if not is_lazy(p)]
            _require_finite("parameter", [n for n, p in parameters if not bool(p.isfinite().all())], candidate)
            step = "the forward pass"
            built = case.build()
            built.call(case.tokens())
            buffers = list(built.module.named_buffers())  # memory that a forward pass writes has values now
            _require_finite("buffer", [n for n, b in buffers if bool(b.isnan().any())], candidate)
            found = find_router(case)
            if isinstance(found, UnreadableError):
                return
            if isinstance(found, ClaimError) and (case.is_router or candidate.claim.router is not None):
                raise ClaimError(f"{found}{_place(candidate.factory)}")
            selection_bias(built)
    except TimeLimit:
        raise ClaimError(f"{step} gives no answer within {options.time_limit:g} s at {shape}") from None
    except UnreadableError:
        return  # the checks that this leaves open say so
    except (ClaimError, KeyboardInterrupt):
        raise
    except BaseException as error:  # the candidate's own code may raise anything
        raise ClaimError(one_line(f"{step} raises {describe_error(error)} at {shape}")) from None


@contextmanager
def _marked_memory() -> Iterator[None]:
    """Memory that nothing fills is NaN, not what happens to lie there."""
    # the public functions import a second's worth of torch's compiler
    before, warn_only = torch._C._get_deterministic_algorithms(), torch._C._get_deterministic_algorithms_warn_only()
    torch._C._set_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch._C._set_deterministic_algorithms(before, warn_only=warn_only)


def _require_finite(kind: str, broken: list[str], candidate: Candidate) -> None:
    if not broken:
        return
    more = f" and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
    raise ClaimError(
        f"the factory leaves {len(broken)} {kind}s without finite values: {', '.join(broken[:_NAMED])}{more}"
        f"{_place(candidate.factory)}. Run the init that fills them (in transformers a model's _init_weights)"
    )


def _place(factory: Factory) -> str:
    """`` (FILE:LINE)`` where a factory is defined; "" where that is unknown."""
    with suppress(TypeError, OSError):
        made = inspect.unwrap(factory)
        return f" ({Path(inspect.getsourcefile(made) or '').name}:{inspect.getsourcelines(made)[1]})"
    return ""


def describe(case: ConformanceCase) -> list[str]:
    """One line each: the router, what it returns, its gate, the sum of its weights, and its selection bias."""
    found = find_router(case)
    if isinstance(found, RouterReading):
        lines = [f"router:  {found.name}"] if found.name else []
        lines.append(f"returns: {found.layout}{', by expert' if found.layout.by_expert else ''}")
    elif case.is_router:
        return [f"routing: not readable: {found}"]
    else:
        lines = ["router:  none found; the routing is read from the output"]
    try:
        built, x = case.build(), case.tokens()
        sums = route(built, x).sums.detach()
        low, high = float(sums.min()), float(sums.max())
        total = f"{low:.4g}" if high - low <= TOLERANCE * abs(high) else f"{low:.3g} to {high:.3g}"
        lines.append(f"gate:    {infer_gate(case) or 'unknown (neither sigmoid nor softmax of the logits)'}")
        lines.append(f"sum:     {total} at {case.shape}")
        bias = selection_bias(built)
        if bias is not None:
            lines.append(f"bias:    {bias[0]}, taken for a selection bias")
    except (ClaimError, RuntimeError) as error:
        lines.append(f"could not be read further: {error}")
    return lines
