"""Which worker begins with which tests."""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def deal(items: Sequence[T], workers: int, work: Callable[[T], float]) -> list[T]:
    """The items in the order in which xdist gives each worker a block: longest first, blocks of even work.

    xdist hands out neighbours, as many to each worker, the larger blocks last. Later an idle worker takes over the
    end of the longest queue, but never the two tests that a worker is at.
    """
    few, rest = divmod(len(items), workers)
    room = [few + (at >= workers - rest) for at in range(workers)]
    blocks: list[list[T]] = [[] for _ in range(workers)]
    loads = [0.0] * workers
    for item in sorted(items, key=work, reverse=True):
        at = min((at for at in range(workers) if len(blocks[at]) < room[at]), key=loads.__getitem__)
        blocks[at].append(item)
        loads[at] += work(item)
    return [item for block in blocks for item in block]
