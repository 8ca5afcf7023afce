"""The kernel of ``training.adamw_kernel``."""

import triton
import triton.language as tl
from torch import Tensor


def adamw(
    flat: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    blocks: Tensor,
    rates: Tensor,
    table: Tensor,
    counter: Tensor,
    beta1: float,
    beta2: float,
    aligned: bool,
    block: int,
) -> None:
    """One program per block of at most ``block`` numbers."""
    programs, segments = blocks.shape[1], rates.shape[1]
    _adamw[(programs,)](
        flat, gradient, first, second, blocks, rates, table, counter, programs, segments,
        1 - beta1, beta2, 1 - beta2, ALIGNED=4 if aligned else 1, BLOCK=block,
    )  # fmt: skip


@triton.jit(do_not_specialize=["programs", "segments"])
def _adamw(
    flat, gradient, first, second, blocks, rates, table, counter, programs, segments,
    rest1, beta2, rest2, ALIGNED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    mine = blocks + tl.program_id(0)
    begin = tl.multiple_of(tl.load(mine), ALIGNED)
    at = begin + tl.arange(0, BLOCK)
    live = at < tl.multiple_of(tl.load(mine + programs), ALIGNED)
    segment = tl.load(mine + 2 * programs)
    lr, lr_times_decay = tl.load(rates + segment), tl.load(rates + segments + segment)
    eps = tl.load(rates + 2 * segments + segment)
    row = table + 3 * tl.load(counter)
    multiplier, bias1, bias2 = tl.load(row), tl.load(row + 1), tl.load(row + 2)
    p = tl.load(flat + at, mask=live)
    g = tl.load(gradient + at, mask=live)
    m = tl.load(first + at, mask=live)
    v = tl.load(second + at, mask=live)
    m += rest1 * (g - m)
    v = v * beta2 + rest2 * g * g
    p -= lr_times_decay * multiplier * p
    p -= tl.div_rn(m, tl.sqrt_rn(v) * bias2 + eps) * lr * (multiplier * bias1)
    tl.store(flat + at, p, mask=live)
    tl.store(first + at, m, mask=live)
    tl.store(second + at, v, mask=live)
