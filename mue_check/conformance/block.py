"""The parts of a block: y = shared(x) + scale * sum_e C[t, e] f_e(x), with each part read from the block itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mue_check.conformance.case import BuiltCandidate
from mue_check.conformance.expert_weights import keep_experts, random_values
from mue_check.conformance.find_experts import DECLARE
from mue_check.conformance.learned import ExpertForm, RouterReading
from mue_check.conformance.logits import gate_logits
from mue_check.conformance.router_probe import (
    find_router,
    layout_of,
    router_input,
    router_name,
    router_of,
    router_routing,
)
from mue_check.conformance.torch_calls import record_calls
from mue_check.errors import UnreadableError
from mue_check.plain import plain
from mue_check.routing.canonical import Routing

_SMALL = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Weights below this are read as 0, relative to the largest."""


@dataclass(frozen=True, kw_only=True)
class ProbedBlock:
    """A built block with known experts. ``values`` holds every parameter by name, with other experts' weights."""

    built: BuiltCandidate
    form: ExpertForm
    values: Mapping[str, Tensor]

    @property
    def experts(self) -> int:
        """E."""
        return self.built.case.shape.experts

    def output(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """[T, D]: the block's output, with the experts in ``keep`` [E] only."""
        own = self._own if keep is None else keep_experts(self.form.tensors, self.values, keep)
        return self.built.output_with(own, x)

    def shared(self, x: Tensor) -> Tensor:
        """[T, D]: the output without any routed expert."""
        return self.output(x, torch.zeros(self.experts, dtype=torch.bool, device=x.device))

    def routed(self, x: Tensor) -> Tensor:
        """[T, D]: what all routed experts add."""
        return self.output(x) - self.shared(x)

    def routing(self, x: Tensor) -> Routing:
        """The router's routing, or the one that the output shows if the block has no router that can be read."""
        return router_routing(self.built, x) if self.reads_router else self.routing_from_output(x)

    @property
    def reads_router(self) -> bool:
        """Whether the routing comes from the router, not from the block's output."""
        return layout_of(self.built.case) is not None

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Names of parameters by group: "experts", "router" and "others", which include shared experts."""
        every, router = list(self.values), router_name(self.built.case)
        experts = [n for t in self.form.tensors for n in t.names(self.experts)]
        routing = [n for t in self.form.router_tensors for n in t.names(self.experts)]
        routing += [n for n in every if router and n.startswith(router + ".") and n not in (*routing, *experts)]
        return {"experts": experts, "router": routing, "others": [n for n in every if n not in (*routing, *experts)]}

    def load(self) -> dict[str, Tensor]:
        """Write the values into the module's own parameters and return those by name; adapters get random values."""
        own = self.built.parameters()
        values = {**self.values, **random_values(self.form.adapters, own, self.experts, self.built.case.seed)}
        with torch.no_grad():
            for name in self.groups["experts"]:
                own[name].copy_(values[name])
        return own

    def output_and_routing(self, x: Tensor) -> tuple[Tensor, Routing]:
        """The module's output and the routing of that same call, since noise in training changes both."""
        found, router = find_router(self.built.case), router_of(self.built)
        if not isinstance(found, RouterReading) or found.call is not None:
            return self.built.output(x), self.routing(x)
        with record_calls(self.built.module, lambda m: m is router) as calls:
            y = self.built.output(x)
        return y, found.layout.read(calls[0].output, self.built.size(x))

    def expert_outputs(self, x: Tensor, combine: Tensor | None = None) -> Tensor:
        """[E, T, D]: f_e(x), or f_e(C x) with weights [T, E] for a block that weights its experts' input."""
        if self.form.function is None:
            raise UnreadableError(f"the function that one expert computes is unknown: {DECLARE}")
        x = self.expert_input(x)
        if combine is not None:
            x = combine.T.unsqueeze(-1).to(x.dtype) * x
        return self.form.function.outputs(self.built.module, self.values, x, self.experts)

    def expert_input(self, x: Tensor) -> Tensor:
        """[T, D]: the tokens as the experts receive them."""
        if self.form.view is None:
            return x.to(self.built.dtype)
        return router_input(self.built, x) if self.form.view == "" else dict(views_of(self.built, x))[self.form.view]

    def identity_output(self, x: Tensor) -> Tensor:
        """[T, D]: what null experts add that pass their input on; 0 without null experts."""
        nulls = self.routing(x).null_combine if self.reads_router else None
        if nulls is None:
            return torch.zeros_like(x, dtype=self.built.dtype)
        return self.built.case.claim.route_scale * nulls.sum(-1, keepdim=True) * self.expert_input(x)

    def claimed_output(self, x: Tensor, combine: Tensor) -> Tensor:
        """[T, D]: the routed output that these weights [T, E] give by the claim."""
        claim = self.built.case.claim
        if claim.apply_on == "input":
            # an expert that a token does not meet adds nothing, even with biases
            return claim.route_scale * (self.expert_outputs(x, combine) * (combine != 0).T.unsqueeze(-1)).sum(0)
        outputs = self.expert_outputs(x)
        return claim.route_scale * torch.einsum("te,etd->td", combine.to(outputs.dtype), outputs)

    def solve_weights(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """([T, E] weights that the output shows, [T] relative part of it that is no sum of the experts' outputs).

        Each token gives D equations. They are solved for few experts at a time, so that the other equations can show
        whether the solution holds.
        """
        outputs, shared = _widen(self.expert_outputs(x)), _widen(self.shared(x))
        size = outputs.norm(dim=-1, keepdim=True).clamp_min(1e-30)
        unit_TED = (outputs / size).transpose(0, 1)
        few = max(1, x.shape[1] // 2)
        combine, rest = [], torch.zeros_like(shared)
        for group in torch.split(torch.arange(self.experts, device=x.device), few):
            keep = torch.zeros(self.experts, dtype=torch.bool, device=x.device)
            keep[group] = True
            routed = _widen(self.output(x, None if len(group) == self.experts else keep)) - shared
            unit = unit_TED[:, group]
            # a dead expert has no direction: its weight is then 0
            gram = unit @ unit.mT + 1e-12 * torch.eye(len(group), dtype=unit.dtype, device=x.device)
            solved = torch.linalg.solve(gram, (unit @ routed.unsqueeze(-1)).squeeze(-1))
            rest = rest + routed - torch.einsum("te,ted->td", solved, unit)
            combine.append(solved)
        weights = torch.cat(combine, dim=1) / size.squeeze(-1).T
        total = (_widen(self.output(x)) - shared).detach().norm(dim=-1)
        return weights, rest.detach().norm(dim=-1) / total.clamp_min(1e-6 * float(total.max()) + 1e-30)

    def routing_from_output(self, x: Tensor) -> Routing:
        """The routing that the output shows, with its gradient; ClaimError where it shows none."""
        if self.built.case.claim.apply_on == "input":
            raise UnreadableError(
                "weights on the experts' input cannot be read from the output: make the router a module that returns "
                "weights and indices, and name it in the claim (router = 'gate')"
            )
        combine, rest = self.solve_weights(x)
        if not float(rest.max()) <= (1e-3 if self.built.dtype in _SMALL else 0.1):
            raise UnreadableError(
                f"{float(rest.max()):.2g} of a token's routed output is not a sum of the experts' outputs, and no part "
                "of the block returns its routing: make the router a module, and name it in the claim (router = 'gate')"
            )
        combine = combine / self.built.case.claim.route_scale
        met = combine.abs() > _SMALL.get(self.built.dtype, 1e-2) * float(combine.detach().abs().max())
        return Routing(combine=torch.where(met, combine, 0.0), times=met.long(), logits=gate_logits(self.built, x))

    @cached_property
    def _own(self) -> dict[str, Tensor]:
        return {n: self.values[n] for n in self.groups["experts"]}


def _widen(x: Tensor) -> Tensor:
    """At least float32, which solving needs."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def views_of(built: BuiltCandidate, x: Tensor) -> list[tuple[str, Tensor]]:
    """Names and outputs [T, D] of the block's parts that map tokens to tokens, such as a norm before the experts."""
    views: dict[str, Tensor] = {}
    with record_calls(built.module, lambda m: m is not built.module) as calls:
        built.call(x)
    for call in calls:
        output = plain(call.output) if isinstance(call.output, Tensor) else None
        if output is not None and output.shape[-1:] == x.shape[1:] and output.numel() == x.numel():
            views.setdefault(call.name, output.reshape(x.shape).to(built.dtype))
    return list(views.items())
