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
    tiles are the fastest. ``programs`` fill the card, two on each multiprocessor.
    """

    moving: int = 100
    moving_inside: int = 32
    full_load: int = 96
    half_load: int = 32
    wide_expert: int = 64
    programs: int = 264


CARDS = {"H100": Card()}
"""By a part of the card's name. Others are taken for an H100."""


@cache
def card_of(device: torch.device) -> Card:
    """The card of a device."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" and torch.cuda.is_available() else ""
    return next((card for part, card in CARDS.items() if part in name), CARDS["H100"])
