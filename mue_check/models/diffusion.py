"""The reference diffusion transformer: the blocks of the language model, conditioned on time and class.

Adaptive norms scale and shift, and a gate multiplies each branch before it joins the residual stream (arXiv
2212.09748). It predicts the velocity of flow matching (arXiv 2210.02747). Multipliers come from the prescription: those
of ``Blocks``, and 1/rho_d on the final layer.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mue_check.models.balancing import LayerRouting
from mue_check.models.blocks import FINAL_NORM, Blocks, norm_name
from mue_check.models.image_examples import Noised
from mue_check.models.parameters import Parameter, Parameters
from mue_check.models.patches import Grid, positions, sinusoids
from mue_check.models.pointwise import add_norm, rms_norm, scaled, wide
from mue_check.models.routers import Routers
from mue_check.models.tap import Tap, no_tap
from mue_check.routing.content_blind import place_keys
from mue_check.rules import Prescription, Role
from mue_check.spec import DiffusionSpec

TIME_FEATURES, TIME_SCALE, LONGEST = 64, 1000.0, 10_000.0
"""Sinusoids of the time, which runs from 0 to 1000, and the slowest of them; as in the published code."""


class DiffusionModel:
    """A stack of diffusion transformers with one spec and one prescription; holds no tensors itself."""

    def __init__(self, spec: DiffusionSpec, prescription: Prescription, *, grid: Grid, classes: int) -> None:
        self.spec, self.grid, self.classes = spec, grid, classes if spec.labels else 0
        self.blocks = Blocks(spec, prescription, causal=False)
        self.routers = self.blocks.routers
        self.parameters = tuple(self._declare())
        self._final_multiplier = prescription[Role.UNEMBEDDING].forward_multiplier

    def forward(
        self,
        p: Parameters,
        inputs: Noised,
        tap: Tap = no_tap,
        *,
        routers: Routers | None = None,
        layers: list[LayerRouting] | None = None,
    ) -> Tensor:
        """The velocity [R, B*T, P] of noised examples. How each layer routed is appended to ``layers``."""
        runs, batch, tokens, _ = inputs.clean.shape
        dtype, width = p["patch_embedding"].dtype, self.spec.width
        place = positions(self.grid, width, inputs.clean.device).to(dtype)
        x = _linear(p, "patch_embedding", inputs.noisy.to(dtype).flatten(1, 2))
        x = (x.view(runs, batch, tokens, width) + place).flatten(1, 2)
        tap("embedding", x)
        modulation = self._modulation(p, self._condition(p, inputs, tap), tap)

        def by_example(value: Tensor) -> Tensor:
            return value.reshape(runs * batch, tokens, width)

        def join(x: Tensor, branch: Tensor, before: str, after: str) -> tuple[Tensor, Tensor]:
            gate, (shift, scale) = modulation[before][2].unsqueeze(1), modulation[after][:2]
            x, y = add_norm(by_example(x), by_example(branch) * gate, 1 + scale)
            return x.view(runs, -1, width), (y + shift.unsqueeze(1)).view(runs, -1, width)

        shift, scale = modulation[norm_name(0, "attention")][:2]
        y = self.blocks(
            p,
            x,
            (rms_norm(by_example(x), 1 + scale) + shift.unsqueeze(1)).view_as(x),
            join,
            positions=tokens,
            routers=routers,
            place_RM=self._place(inputs) if self.blocks.by_place else None,
            tap=tap,
            layers=layers,
        )
        velocity = _linear(p, "final_layer", y, self._final_multiplier)
        tap("velocity", velocity)
        return velocity

    def losses(
        self,
        p: Parameters,
        inputs: Noised,
        *,
        routers: Routers | None = None,
        layers: list[LayerRouting] | None = None,
    ) -> Tensor:
        """Mean squared error of the velocity per run, [R]; predicting 0 has about 1 + the variance of the data, 2."""
        velocity = wide(self.forward(p, inputs, routers=routers, layers=layers))
        return (velocity - inputs.velocity.flatten(1, 2)).square().mean((1, 2))

    def _condition(self, p: Parameters, inputs: Noised, tap: Tap) -> Tensor:
        """silu(c) [R, B, D] of the sum c of time and class."""
        features = sinusoids(inputs.time * TIME_SCALE, TIME_FEATURES, LONGEST).to(p["timestep_in"].dtype)
        c = _linear(p, "timestep_out", F.silu(_linear(p, "timestep_in", features)))
        if self.classes:
            run = torch.arange(len(c), device=c.device).unsqueeze(1)
            c = c + p["label_embedding"][run, inputs.label]
        tap("conditioning", c)
        return F.silu(c)

    def _modulation(self, p: Parameters, c_RBD: Tensor, tap: Tap) -> dict[str, tuple[Tensor, ...]]:
        """By name of the norm: its shift and scale, and the gate of the branch behind it, each [R*B, D]."""
        found: dict[str, tuple[Tensor, ...]] = {}
        shared = _linear(p, "modulation", c_RBD) if self.spec.shared_modulation else None
        for layer in range(self.spec.depth):
            prefix = f"block{layer}."
            if shared is None:
                each = _linear(p, prefix + "modulation", c_RBD)
            else:
                each = shared + p[prefix + "scale_shift_table"].unsqueeze(1)
            tap(prefix + "modulation", each)
            parts = each.view(-1, 6, self.spec.width).unbind(1)
            found[norm_name(layer, "attention")], found[norm_name(layer, "ffn")] = parts[:3], parts[3:]
        final = _linear(p, "final_modulation", c_RBD)
        tap("final_modulation", final)
        found[FINAL_NORM] = final.view(-1, 2, self.spec.width).unbind(1)
        return found

    def _place(self, inputs: Noised) -> Tensor:
        """[R, B*T] a key of each token's place in its example, of which routing may not see the content."""
        bits = inputs.noise[..., 0].contiguous().view(torch.int32).long() & (2**32 - 1)
        return place_keys(bits)

    def _declare(self) -> Iterator[Parameter]:
        d, numbers = self.spec.width, self.grid.numbers

        def linear(name: str, role: Role, inputs: int, outputs: int) -> Iterator[Parameter]:
            yield Parameter(name=name, role=role, shape=(inputs, outputs))
            yield Parameter(name=name + "_bias", role=Role.BIAS, shape=(outputs,), constant=0.0)

        yield from linear("patch_embedding", Role.PATCH_EMBEDDING, numbers, d)
        yield from linear("timestep_in", Role.TIMESTEP_IN, TIME_FEATURES, d)
        yield from linear("timestep_out", Role.TIMESTEP_OUT, d, d)
        if self.classes:
            yield Parameter(name="label_embedding", role=Role.LABEL_EMBEDDING, shape=(self.classes, d))
        if self.spec.shared_modulation:
            yield from linear("modulation", Role.MODULATION, d, 6 * d)
        for layer in range(self.spec.depth):
            prefix = f"block{layer}."
            if self.spec.shared_modulation:
                yield Parameter(name=prefix + "scale_shift_table", role=Role.SCALE_SHIFT_TABLE, shape=(6 * d,))
            else:
                yield from linear(prefix + "modulation", Role.MODULATION, d, 6 * d)
            yield from self.blocks.declare_attention(layer)
            yield from self.blocks.feed_forward.declare(layer)
        yield from linear("final_modulation", Role.MODULATION, d, 2 * d)
        yield from linear("final_layer", Role.UNEMBEDDING, d, numbers)


def _linear(p: Parameters, name: str, x: Tensor, multiplier: float = 1.0) -> Tensor:
    """multiplier * x W + b of [R, M, in]."""
    return scaled(torch.bmm(x, p[name]), multiplier) + p[name + "_bias"].unsqueeze(1)
