"""Which way of computing is the fastest on a GPU: everything that was measured on a card, in one table."""

from dataclasses import dataclass
from functools import cache

import torch


@dataclass(frozen=True, kw_only=True)
class Card:
    """What was measured on one card by bench/expert_product.py and bench/triton_kernels.py (reports/bench).

    ``moving`` and ``moving_inside``: the hidden units whose product with a token costs as much as moving the token to
    an expert and back, by torch's operations and inside the Triton kernels. ``full_load`` and ``half_load``: tokens of
    an expert from which its tiles have 64 and 32 rows; else they have 16. ``wide_expert``: hidden units from which wide
    tiles are the fastest. ``programs`` fill the card, two on each multiprocessor. ``dense_layers``: whether
    programs have the shared memory that those of dense layers need (reports/bench/compiled_kernels.md).
    """

    moving: int = 100
    moving_inside: int = 32
    full_load: int = 96
    half_load: int = 32
    wide_expert: int = 64
    programs: int = 264
    dense_layers: bool = True


CARDS = {"H100": Card()}
"""By a part of the card's name. Others are taken for an H100, or, if they are older, for ``OLDER``."""
OLDER = Card(dense_layers=False)


@cache
def card_of(device: torch.device) -> Card:
    """The card of a device."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return CARDS["H100"]
    name = torch.cuda.get_device_name(device)
    default = CARDS["H100"] if torch.cuda.get_device_capability(device) >= (9, 0) else OLDER
    return next((card for part, card in CARDS.items() if part in name), default)
