"""The product of routed experts, forward and backward, for all experts of all runs at once.

Rows are gathered and scattered inside the kernels, and a token's K rows are summed afterwards, in one order. Only x,
the weights and the order are kept for the backward pass, which computes the hidden units again. Products accumulate in
float32. A program reads rows of its own run alone, so that a NaN does not spread to other runs.
"""

from dataclasses import dataclass, replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from mue_check.models.cards import Card, card_of
from mue_check.models.kernels.sort import sort_by_expert
from mue_check.models.kernels.tiles import multiplies_in_full, power, precision_of


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Sizes of the blocks of one program, all powers of two.

    A tile has ``rows`` rows. Sums over D take ``step`` of it at a time, outputs are ``width`` of D wide, and ``hidden``
    of F. ``stages`` of loads are in flight.
    """

    rows: int = 64
    step: int = 32
    width: int = 64
    hidden: int = 64
    stages: int = 2


MOST_SLICES = 16
"""Into how many the rows of an expert are cut, where there are too few experts to fill the card."""


def rows_of_tile(card: Card, tokens: int, active: int, total: int, hidden: int, dtype: torch.dtype) -> int:
    """By the mean load of an expert: a tile that is half empty costs as much as a full one."""
    load = tokens * active / total
    if load >= card.full_load and not (dtype is torch.float32 and hidden >= card.wide_expert):
        return 64
    return 32 if load >= card.half_load else 16


def choose_tiling(x_RMD: Tensor, up_RDEF: Tensor, active: int) -> Tiling:
    """The fastest, by precision and the width of experts."""
    card = card_of(x_RMD.device)
    total, hidden = up_RDEF.shape[2:]
    tiling = Tiling(rows=rows_of_tile(card, x_RMD.shape[1], active, total, hidden, x_RMD.dtype))
    if x_RMD.dtype is torch.bfloat16:
        return replace(tiling, width=128)
    if multiplies_in_full(x_RMD):
        return tiling
    return replace(tiling, step=64, width=128) if hidden >= card.wide_expert else replace(tiling, stages=1)


@dataclass(frozen=True)
class _Launch:
    """What all kernels of one product are launched with."""

    tiling: Tiling
    x: Tensor
    up: Tensor

    def sums_over_width(self) -> dict[str, object]:
        """For kernels whose output is [rows, F]."""
        return self._with(self.tiling.rows, self.tiling.step)

    def sums_over_hidden(self) -> dict[str, object]:
        """For kernels whose output is [rows, D]."""
        return self._with(self.tiling.rows, self.tiling.width)

    def sums_over_rows(self) -> dict[str, object]:
        """For kernels whose output is [D, F]."""
        return self._with(min(32, self.tiling.rows), self.tiling.width)

    def _with(self, rows: int, width: int) -> dict[str, object]:
        full = multiplies_in_full(self.x)
        return {
            "ROWS": rows,
            "WIDTH": min(width, power(self.x.shape[2])),
            "HIDDEN": self.hidden,
            "PRECISION": precision_of(self.x),
            # without tensor cores, a product needs more registers
            "num_warps": 8 if full and rows >= 64 else 4,
            "num_stages": self.tiling.stages,
        }

    @property
    def hidden(self) -> int:
        """Of F, in one program."""
        return min(self.tiling.hidden, power(self.up.shape[3]))

    @property
    def parts(self) -> int:
        """Programs along F."""
        return int(triton.cdiv(self.up.shape[3], self.hidden))

    @property
    def columns(self) -> int:
        """Programs along D."""
        return int(triton.cdiv(self.x.shape[2], min(self.tiling.width, power(self.x.shape[2]))))


def routed_experts(
    x_RMD: Tensor,
    up_RDEF: Tensor,
    gate_RDEF: Tensor,
    down_REFD: Tensor,
    weights_RMK: Tensor,
    indices_RMK: Tensor,
    multiplier: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The weighted sum over each token's experts times ``multiplier``, [R, M, D], and the fields of ``Sorted``."""
    runs, tokens, width = x_RMD.shape
    total, hidden = up_RDEF.shape[2:]
    active = weights_RMK.shape[2]
    tiling = choose_tiling(x_RMD, up_RDEF, active)
    found = sort_by_expert(indices_RMK, total, tiling.rows)
    rows, tiles = weights_RMK.numel(), found.tiles_3T.shape[1]
    launch = _Launch(tiling, x_RMD, up_RDEF)
    h_SF = x_RMD.new_empty(rows, hidden)
    _hidden[(tiles, launch.parts)](
        x_RMD, up_RDEF, gate_RDEF, weights_RMK, found.order_S, found.tiles_3T, h_SF, multiplier,
        tiles // runs, tiles, active, width, total, hidden, **launch.sums_over_width(),
    )  # fmt: skip
    out_SD = x_RMD.new_empty(rows, width)
    _to_tokens[(tiles, launch.columns)](
        h_SF, h_SF, down_REFD, down_REFD, found.order_S, found.tiles_3T, out_SD,
        tiles // runs, tiles, width, total, hidden, TWO=False, **launch.sums_over_hidden(),
    )  # fmt: skip
    out_RMD = out_SD.view(runs, tokens, active, width).sum(2)
    return out_RMD, found.order_S, found.end_GC, found.tiles_3T


def routed_experts_backward(
    gradient_RMD: Tensor,
    x_RMD: Tensor,
    up_RDEF: Tensor,
    gate_RDEF: Tensor,
    down_REFD: Tensor,
    weights_RMK: Tensor,
    order_S: Tensor,
    end_GC: Tensor,
    tiles_3T: Tensor,
    multiplier: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, up, gate, down and the routing weights."""
    runs, tokens, width = x_RMD.shape
    total, hidden = up_RDEF.shape[2:]
    active = weights_RMK.shape[2]
    rows, tiles = weights_RMK.numel(), tiles_3T.shape[1]
    launch = _Launch(choose_tiling(x_RMD, up_RDEF, active), x_RMD, up_RDEF)
    parts = launch.parts
    h_SF, up_SF, gate_SF = (x_RMD.new_empty(rows, hidden) for _ in range(3))
    of_weights = torch.empty(parts, rows, dtype=torch.float32, device=x_RMD.device)
    _hidden_backward[(tiles, parts)](
        x_RMD, up_RDEF, gate_RDEF, down_REFD, weights_RMK, gradient_RMD, order_S, tiles_3T,
        h_SF, up_SF, gate_SF, of_weights, multiplier,
        tiles // runs, tiles, rows, active, width, total, hidden, **launch.sums_over_width(),
    )  # fmt: skip
    of_x = x_RMD.new_empty(rows, width)
    _to_tokens[(tiles, launch.columns)](
        gate_SF, up_SF, gate_RDEF, up_RDEF, order_S, tiles_3T, of_x,
        tiles // runs, tiles, width, total, hidden, TWO=True, **launch.sums_over_hidden(),
    )  # fmt: skip
    of_matrices = weight_gradients(x_RMD, gradient_RMD, up_RDEF, (h_SF, up_SF, gate_SF), order_S, end_GC, active)
    of_weights = of_weights[0] if parts == 1 else of_weights.sum(0)
    return (
        of_x.view(runs, tokens, active, width).sum(2),
        *of_matrices,
        of_weights.view_as(weights_RMK).to(weights_RMK.dtype),
    )


def weight_gradients(
    x_RMD: Tensor,
    gradient_RMD: Tensor,
    up_RDEF: Tensor,
    rows_SF: tuple[Tensor, Tensor, Tensor],
    order_S: Tensor | None,
    end_GC: Tensor | None,
    active: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of up and gate [R, D, E, F] and of down [R, E, F, D].

    ``rows_SF``: the hidden units, and the gradients of both products, in their order. Without an order, one expert of
    each run takes all tokens.
    """
    (runs, tokens, width), (total, hidden) = x_RMD.shape, up_RDEF.shape[2:]
    launch = _Launch(choose_tiling(x_RMD, up_RDEF, active), x_RMD, up_RDEF)
    programs = runs * total * launch.columns * launch.parts
    slices = max(1, min(MOST_SLICES, card_of(x_RMD.device).programs // programs))
    parts_of = x_RMD.new_empty(slices, 3, up_RDEF.numel())
    _weight_gradients[(runs * total, launch.columns, launch.parts * slices)](
        x_RMD, gradient_RMD, *rows_SF, order_S, end_GC, parts_of, 0 if end_GC is None else end_GC.shape[1], slices,
        launch.parts, tokens * active, active, width, total, hidden, **launch.sums_over_rows(),
    )  # fmt: skip
    of_up, of_gate, of_down = parts_of[0] if slices == 1 else parts_of.sum(0)
    return of_up.view_as(up_RDEF), of_gate.view_as(up_RDEF), of_down.view(runs, total, hidden, width)


@triton.jit
def _tile(tiles_3T, all_tiles, order_S, ROWS: tl.constexpr):
    """The expert of this program's tile, its rows, which of them exist, and their assignments."""
    place = tiles_3T + tl.program_id(0)
    expert = tl.load(place)
    row = tl.load(place + all_tiles) + tl.arange(0, ROWS)
    live = row < tl.load(place + 2 * all_tiles)
    return expert, row.to(tl.int64), live, tl.load(order_S + row, mask=live, other=0)


SHARED = ["tiles", "all_tiles", "all_rows", "run_rows", "chunks", "slices", "parts", "active", "total"]
"""Sizes for which no kernel is compiled anew: nothing would be gained."""


@triton.jit(do_not_specialize=SHARED)
def _hidden(
    x, up, gate, weights, order_S, tiles_3T, h_SF, multiplier,
    tiles, all_tiles, active, width, total, hidden,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, HIDDEN: tl.constexpr,
):  # fmt: skip
    """One tile of weight * silu(x gate) * (x up)."""
    expert, row, live, assignment = _tile(tiles_3T, all_tiles, order_S, ROWS)
    if tl.max(live.to(tl.int32), 0) == 0:
        return
    f = tl.program_id(1) * HIDDEN + tl.arange(0, HIDDEN)
    run = (tl.program_id(0) // tiles).to(tl.int64)
    of_expert = run * width * total * hidden + expert * hidden + f
    of_token = (assignment // active).to(tl.int64) * width
    by_gate = tl.zeros([ROWS, HIDDEN], tl.float32)
    by_up = tl.zeros([ROWS, HIDDEN], tl.float32)
    for start in range(0, width, WIDTH):
        d = start + tl.arange(0, WIDTH)
        rows = tl.load(x + of_token[:, None] + d[None, :], mask=live[:, None] & (d[None, :] < width), other=0.0)
        place = of_expert[None, :] + d[:, None] * (total * hidden)
        known = (d[:, None] < width) & (f[None, :] < hidden)
        by_gate = tl.dot(rows, tl.load(gate + place, mask=known, other=0.0), by_gate, input_precision=PRECISION)
        by_up = tl.dot(rows, tl.load(up + place, mask=known, other=0.0), by_up, input_precision=PRECISION)
    weight = tl.load(weights + assignment, mask=live, other=0.0).to(tl.float32) * multiplier
    h = by_gate * tl.sigmoid(by_gate) * by_up * weight[:, None]
    kept = live[:, None] & (f[None, :] < hidden)
    tl.store(h_SF + row[:, None] * hidden + f[None, :], h.to(h_SF.dtype.element_ty), mask=kept)


@triton.jit(do_not_specialize=SHARED)
def _to_tokens(
    rows_SF, others_SF, weights, other_weights, order_S, tiles_3T, out_SD,
    tiles, all_tiles, width, total, hidden,
    TWO: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, HIDDEN: tl.constexpr,
):  # fmt: skip
    """One tile of rows @ down [R, E, F, D], or, with TWO, of rows @ gate^T + others @ up^T, both [R, D, E, F].

    The row of assignment s is row s of the output.
    """
    expert, row, live, assignment = _tile(tiles_3T, all_tiles, order_S, ROWS)
    if tl.max(live.to(tl.int32), 0) == 0:
        return
    d = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    run = (tl.program_id(0) // tiles).to(tl.int64)
    out = tl.zeros([ROWS, WIDTH], tl.float32)
    for start in range(0, hidden, HIDDEN):
        f = start + tl.arange(0, HIDDEN)
        at = row[:, None] * hidden + f[None, :]
        kept = live[:, None] & (f[None, :] < hidden)
        rows = tl.load(rows_SF + at, mask=kept, other=0.0)
        if TWO:
            place = run * width * total * hidden + d[:, None] * (total * hidden) + expert * hidden + f[None, :]
            known = (d[:, None] < width) & (f[None, :] < hidden)
            matrix = tl.trans(tl.load(weights + place, mask=known, other=0.0))
            out = tl.dot(rows, matrix, out, input_precision=PRECISION)
            others = tl.load(others_SF + at, mask=kept, other=0.0)
            matrix = tl.trans(tl.load(other_weights + place, mask=known, other=0.0))
            out = tl.dot(others, matrix, out, input_precision=PRECISION)
        else:
            place = (run * total + expert) * hidden * width + f[:, None] * width + d[None, :]
            known = (f[:, None] < hidden) & (d[None, :] < width)
            matrix = tl.load(weights + place, mask=known, other=0.0)
            out = tl.dot(rows, matrix, out, input_precision=PRECISION)
    place = assignment.to(tl.int64)[:, None] * width + d[None, :]
    tl.store(out_SD + place, out.to(out_SD.dtype.element_ty), mask=live[:, None] & (d[None, :] < width))


@triton.jit(do_not_specialize=SHARED)
def _hidden_backward(
    x, up, gate, down, weights, gradient, order_S, tiles_3T,
    h_SF, up_SF, gate_SF, of_weights, multiplier,
    tiles, all_tiles, all_rows, active, width, total, hidden,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, HIDDEN: tl.constexpr,
):  # fmt: skip
    """One tile of the weighted hidden units again, and the gradients of both products and of the routing weights."""
    expert, row, live, assignment = _tile(tiles_3T, all_tiles, order_S, ROWS)
    if tl.max(live.to(tl.int32), 0) == 0:
        return
    f = tl.program_id(1) * HIDDEN + tl.arange(0, HIDDEN)
    run = (tl.program_id(0) // tiles).to(tl.int64)
    of_expert = run * width * total * hidden + expert * hidden + f
    of_down = ((run * total + expert) * hidden + f) * width
    of_token = (assignment // active).to(tl.int64) * width
    by_gate = tl.zeros([ROWS, HIDDEN], tl.float32)
    by_up = tl.zeros([ROWS, HIDDEN], tl.float32)
    of_h = tl.zeros([ROWS, HIDDEN], tl.float32)
    for start in range(0, width, WIDTH):
        d = start + tl.arange(0, WIDTH)
        inside = live[:, None] & (d[None, :] < width)
        known = (d[:, None] < width) & (f[None, :] < hidden)
        rows = tl.load(x + of_token[:, None] + d[None, :], mask=inside, other=0.0)
        place = of_expert[None, :] + d[:, None] * (total * hidden)
        by_gate = tl.dot(rows, tl.load(gate + place, mask=known, other=0.0), by_gate, input_precision=PRECISION)
        by_up = tl.dot(rows, tl.load(up + place, mask=known, other=0.0), by_up, input_precision=PRECISION)
        rows = tl.load(gradient + of_token[:, None] + d[None, :], mask=inside, other=0.0)
        known = (f[:, None] < hidden) & (d[None, :] < width)
        matrix = tl.trans(tl.load(down + of_down[:, None] + d[None, :], mask=known, other=0.0))
        of_h = tl.dot(rows, matrix, of_h, input_precision=PRECISION)
    weight = tl.load(weights + assignment, mask=live, other=0.0).to(tl.float32)[:, None] * multiplier
    half = tl.sigmoid(by_gate)
    silu = by_gate * half
    part = tl.sum(of_h * silu * by_up, 1) * multiplier
    tl.store(of_weights + tl.program_id(1) * all_rows + assignment, part, mask=live)
    of_h *= weight
    kept = live[:, None] & (f[None, :] < hidden)
    place = row[:, None] * hidden + f[None, :]
    tl.store(h_SF + place, (silu * by_up * weight).to(h_SF.dtype.element_ty), mask=kept)
    tl.store(up_SF + place, (of_h * silu).to(up_SF.dtype.element_ty), mask=kept)
    of_gate = of_h * by_up * (half + silu * (1 - half))
    tl.store(gate_SF + place, of_gate.to(gate_SF.dtype.element_ty), mask=kept)


@triton.jit(do_not_specialize=SHARED)
def _weight_gradients(
    x, gradient, h_SF, up_SF, gate_SF, order_S, end_GC, of_matrices,
    chunks, slices, parts, run_rows, active, width, total, hidden,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, HIDDEN: tl.constexpr,
):  # fmt: skip
    """A block of the three gradients of one expert of one run, over a slice of the rows of the group, in order."""
    group = tl.program_id(0)
    if order_S is None:
        begin = group * run_rows
        end = begin + run_rows
    else:
        end = tl.load(end_GC + group * chunks + chunks - 1)
        begin = tl.load(end_GC + group * chunks - 1, mask=group > 0, other=0)
    chunk, part = tl.program_id(2) // parts, tl.program_id(2) % parts
    rows_of_slice = (end - begin + slices - 1) // slices
    begin += chunk * rows_of_slice
    end = tl.minimum(end, begin + rows_of_slice)
    d = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    f = part * HIDDEN + tl.arange(0, HIDDEN)
    up = tl.zeros([WIDTH, HIDDEN], tl.float32)
    gate = tl.zeros([WIDTH, HIDDEN], tl.float32)
    down = tl.zeros([WIDTH, HIDDEN], tl.float32)
    for start in range(begin, end, ROWS):
        row = start + tl.arange(0, ROWS)
        live = row < end
        assignment = row if order_S is None else tl.load(order_S + row, mask=live, other=0)
        place = (assignment // active).to(tl.int64)[:, None] * width + d[None, :]
        inside = live[:, None] & (d[None, :] < width)
        at = row.to(tl.int64)[:, None] * hidden + f[None, :]
        kept = live[:, None] & (f[None, :] < hidden)
        rows = tl.trans(tl.load(x + place, mask=inside, other=0.0))
        up = tl.dot(rows, tl.load(up_SF + at, mask=kept, other=0.0), up, input_precision=PRECISION)
        gate = tl.dot(rows, tl.load(gate_SF + at, mask=kept, other=0.0), gate, input_precision=PRECISION)
        rows = tl.trans(tl.load(gradient + place, mask=inside, other=0.0))
        down = tl.dot(rows, tl.load(h_SF + at, mask=kept, other=0.0), down, input_precision=PRECISION)
    run, expert = (group // total).to(tl.int64), group % total
    matrix = tl.num_programs(0).to(tl.int64) * hidden * width
    known = (d[:, None] < width) & (f[None, :] < hidden)
    first = of_matrices + chunk * 3 * matrix
    place = run * width * total * hidden + d[:, None] * (total * hidden) + expert * hidden + f[None, :]
    tl.store(first + place, up.to(of_matrices.dtype.element_ty), mask=known)
    tl.store(first + matrix + place, gate.to(of_matrices.dtype.element_ty), mask=known)
    place = group.to(tl.int64) * hidden * width + f[None, :] * width + d[:, None]
    tl.store(first + 2 * matrix + place, down.to(of_matrices.dtype.element_ty), mask=known)
