"""A block opened up: y = shared(x) + scale * sum_e C[t, e] f_e(x), each part read from the block itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mue_check.conformance.case import Built, outputs_of
from mue_check.conformance.expert_function import Function
from mue_check.conformance.experts import DECLARE, Weights, only, output_with, parameters
from mue_check.errors import UnreadableError
from mue_check.routing.adapter import Size
from mue_check.routing.canonical import Routing

_SMALL = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Weights below are read as 0, relative to the largest."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """What was learned of a block's experts: their tensors, what else grows with their number, and f_e or None."""

    weights: tuple[Weights, ...]
    routing: tuple[Weights, ...]
    function: Function | None
    dtype: torch.dtype
    view: str | None = None
    """The part of the block whose output the experts see, "" for the router's input; None for the block's tokens."""
    against_claim: str = ""
    """What was found in place of the experts that the claim declares."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of a case with other values for its experts' weights; ``values`` hold every parameter by name."""

    built: Built
    form: Form
    values: Mapping[str, Tensor]

    @property
    def experts(self) -> int:
        """E."""
        return self.built.case.shape.experts

    def output(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """[T, D]: the block's output, of the experts that ``keep`` [E] names."""
        return output_with(self.built, self._own if keep is None else only(self.form.weights, self.values, keep), x)

    def shared(self, x: Tensor) -> Tensor:
        """[T, D]: what is left of the output without any expert."""
        return self.output(x, torch.zeros(self.experts, dtype=torch.bool, device=x.device))

    def routing(self, x: Tensor) -> Routing:
        """What the router says, or what the output says where the block has no router of its own."""
        return self.built.route(x) if self.reads_router else self.read(x)

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Names of parameters: of "experts", of the "router", and "others", which shared experts are among."""
        every, router = list(self.values), self.built.case.found.router
        experts = [n for w in self.form.weights for n in w.names(self.experts)]
        routing = [n for w in self.form.routing for n in w.names(self.experts)]
        routing += [n for n in every if router and n.startswith(router + ".") and n not in (*routing, *experts)]
        return {"experts": experts, "router": routing, "others": [n for n in every if n not in (*routing, *experts)]}

    def load(self) -> dict[str, Tensor]:
        """Write the values into the module's own parameters, and give those by name."""
        own = parameters(self.built)
        with torch.no_grad():
            for name in self.groups["experts"]:
                own[name].copy_(self.values[name])
        return own

    def observe(self, x: Tensor) -> tuple[Tensor, Routing]:
        """Output of the module itself and the routing of that same call, as noise in training asks for."""
        shape, layout = self.built.case.shape, self.built.case.found.layout
        if not self.reads_router or layout is None:
            return self.built.output(x), self.read(x)
        with outputs_of(self.built.module, lambda m: m is self.built.router) as seen:
            y = self.built.output(x)
        size = Size(tokens=len(x), experts=shape.experts, activated=shape.activated, lead=(1, len(x)))
        return y, layout.read(seen[0][2], size)

    @property
    def reads_router(self) -> bool:
        """Whether the routing comes from the router, and not from the block's output."""
        self.built.case.learn()
        return self.built.case.found.layout is not None

    def functions(self, x: Tensor, combine: Tensor | None = None) -> Tensor:
        """[E, T, D]: f_e(x), or f_e(C x) with weights [T, E] for a block that weights its experts' input."""
        if self.form.function is None:
            raise UnreadableError(f"what one expert computes was not found out: {DECLARE}")
        x = self._seen(x)
        if combine is not None:
            x = combine.T.unsqueeze(-1).to(x.dtype) * x
        return self.form.function.outputs(self.built.module, self.values, x, self.experts)

    def expected(self, x: Tensor, combine: Tensor) -> Tensor:
        """[T, D]: the routed part that these weights [T, E] should give by the claim."""
        claim = self.built.case.claim
        if claim.apply_on == "input":
            # an expert that a token does not meet adds nothing, whatever its biases say
            return claim.route_scale * (self.functions(x, combine) * (combine != 0).T.unsqueeze(-1)).sum(0)
        made = self.functions(x)
        return claim.route_scale * torch.einsum("te,etd->td", combine.to(made.dtype), made)

    def weights_in(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """([T, E] weights that the output shows, [T] part of the routed output that is no sum of the experts' outputs).

        Solved for each token from D equations, for so few experts at a time that the rest of the equations tell.
        """
        made, shared = _wide(self.functions(x)), _wide(self.shared(x))
        size = made.norm(dim=-1, keepdim=True).clamp_min(1e-30)
        unit_TED = (made / size).transpose(0, 1)
        few = max(1, x.shape[1] // 2)
        combine, left = [], torch.zeros_like(shared)
        for group in torch.split(torch.arange(self.experts, device=x.device), few):
            keep = torch.zeros(self.experts, dtype=torch.bool, device=x.device)
            keep[group] = True
            routed = _wide(self.output(x, None if len(group) == self.experts else keep)) - shared
            unit = unit_TED[:, group]
            # a dead expert has no direction: its weight is then 0
            gram = unit @ unit.mT + 1e-12 * torch.eye(len(group), dtype=unit.dtype, device=x.device)
            found = torch.linalg.solve(gram, (unit @ routed.unsqueeze(-1)).squeeze(-1))
            left = left + routed - torch.einsum("te,ted->td", found, unit)
            combine.append(found)
        whole = torch.cat(combine, dim=1) / size.squeeze(-1).T
        total = (_wide(self.output(x)) - shared).detach().norm(dim=-1)
        return whole, left.detach().norm(dim=-1) / total.clamp_min(1e-6 * float(total.max()) + 1e-30)

    def read(self, x: Tensor) -> Routing:
        """The routing that the output shows; ClaimError where it shows none."""
        if self.built.case.claim.apply_on == "input":
            raise UnreadableError(
                "weights on the experts' input cannot be read from the output: make the router a module that returns "
                "weights and choice, and name it in the claim (router = 'gate')"
            )
        combine, left = self.weights_in(x)
        if not float(left.max()) <= (1e-3 if self.built.dtype in _SMALL else 0.1):
            raise UnreadableError(
                f"{float(left.max()):.2g} of a token's routed output is no sum of the experts' outputs, and no part of "
                "the block returns its routing: make the router a module, and name it in the claim (router = 'gate')"
            )
        combine = combine / self.built.case.claim.route_scale
        met = combine.abs() > _SMALL.get(self.built.dtype, 1e-2) * float(combine.detach().abs().max())
        return Routing(combine=torch.where(met, combine, 0.0), times=met.long(), logits=self.built.gate_logits(x))

    @cached_property
    def _own(self) -> dict[str, Tensor]:
        return {n: self.values[n] for w in self.form.weights for n in w.names(self.experts)}

    def _seen(self, x: Tensor) -> Tensor:
        """The tokens as the experts see them."""
        if self.form.view is None:
            return x.to(self.built.dtype)
        if self.form.view == "":
            return router_input(self.built, x)
        return dict(views_of(self.built, x))[self.form.view]


def _wide(x: Tensor) -> Tensor:
    """At least float32, which solving needs."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def views_of(built: Built, x: Tensor) -> list[tuple[str, Tensor]]:
    """Names of a block's parts and what they make [T, D] of tokens, which a norm before the experts may."""
    found: dict[str, Tensor] = {}
    with outputs_of(built.module, lambda m: m is not built.module) as seen:
        built.call(x)
    for name, _, output in seen:
        if isinstance(output, Tensor) and output.shape[-1:] == x.shape[1:] and output.numel() == x.numel():
            found.setdefault(name, output.reshape(x.shape).to(built.dtype))
    return list(found.items())


def router_input(built: Built, x: Tensor) -> Tensor:
    """[T, D]: what the router was given."""
    with outputs_of(built.module, lambda m: m is built.router) as seen:
        built.call(x)
    given = [t for t in seen[0][1] if isinstance(t, Tensor) and t.is_floating_point()] if seen else []
    return given[0].reshape(-1, given[0].shape[-1]) if given else x.to(built.dtype)
