"""What mue_check learns of a candidate once, at a shape where nothing is ambiguous, and uses at every shape."""

from dataclasses import dataclass

import torch

from mue_check.conformance.expert_function import ExpertFunction
from mue_check.conformance.expert_weights import ExpertTensor
from mue_check.errors import ClaimError
from mue_check.routing.adapter import Layout


@dataclass(frozen=True, kw_only=True)
class RouterReading:
    """Which module routes and what the parts of its return are; ``name`` is "" for a candidate that is a router.

    ``call``: the block itself routes, and the result of its torch call of this number is the weights [T, E].
    """

    name: str
    layout: Layout
    call: int | None = None


@dataclass(frozen=True, kw_only=True)
class LogitSource:
    """Where the logits are found.

    ``gate_call`` is the number of the gate-function call that receives them, ``training_gate_call`` that in training
    mode. ``linear``: as far as can be seen, they are x W^T with the router's only [E, d] weight.
    """

    gate_call: int | None
    training_gate_call: int | None
    linear: bool


@dataclass(frozen=True, kw_only=True)
class ExpertForm:
    """A block's experts: their tensors, the other tensors that grow with E (the router's), and f_e if it was found."""

    tensors: tuple[ExpertTensor, ...]
    router_tensors: tuple[ExpertTensor, ...]
    function: ExpertFunction | None
    dtype: torch.dtype
    view: str | None = None
    """The part of the block whose output the experts receive, "" for the router's input; None for the block's input."""
    adapters: tuple[ExpertTensor, ...] = ()
    """Those tensors that are not part of f_e: low-rank additions to its matrices. They are 0 where f_e is compared."""
    gates: tuple[str, ...] = ()
    """Vectors that start at zero and multiply the whole branch: they are 1 where the block is probed."""
    against_claim: str = ""
    """The function found instead of the one that the claim declares."""


@dataclass
class Learned:
    """A cache that all cases of one candidate share; an error in it is why something could not be learned."""

    takes_batch: bool | None = None
    router: RouterReading | ClaimError | None = None
    logits: LogitSource | None = None
    experts: ExpertForm | ClaimError | None = None
    unclaimed_groups: str | None = None
