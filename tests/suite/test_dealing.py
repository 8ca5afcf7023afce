import itertools
from types import SimpleNamespace

import pytest
from xdist.scheduler import WorkStealingScheduling

from mue_check.suite.schedule import deal


class Worker:
    """As much of xdist's worker as its scheduler sees."""

    shutting_down = False

    def __init__(self) -> None:
        self.queue: list[int] = []
        self.gateway = SimpleNamespace(id=str(id(self)))

    def send_runtest_some(self, indices: list[int]) -> None:
        self.queue += indices

    def send_steal(self, indices: list[int]) -> None:
        pass

    def shutdown(self) -> None:
        pass


def queues(work: list[float], workers: int) -> list[list[float]]:
    """The work that xdist itself gives each worker to begin with, in the order of its tests."""
    dealt = deal(work, workers, float)
    config = SimpleNamespace(getvalue=lambda name: ["popen"] * workers, option=SimpleNamespace(debug=False))
    scheduler = WorkStealingScheduling(config)
    nodes = [Worker() for _ in range(workers)]
    for node in nodes:
        scheduler.add_node(node)
        scheduler.add_node_collection(node, [f"{at}: {each}" for at, each in enumerate(dealt)])
    scheduler.schedule()
    return [[dealt[at] for at in node.queue] for node in nodes]


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
@pytest.mark.parametrize("count", [8, 16, 19, 30, 101])
def test_every_worker_begins_with_one_of_the_longest(workers: int, count: int) -> None:
    work = [1000 * 0.9**at for at in range(count)]
    found = queues(work[::-1], workers)
    assert sorted(queue[0] for queue in found) == sorted(work[:workers])
    assert all(queue == sorted(queue, reverse=True) for queue in found)
    assert sorted(itertools.chain(*found)) == sorted(work)


def test_blocks_are_even() -> None:
    """Two for each cannot be taken over by another worker: none has two long ones."""
    loads = [sum(queue) for queue in queues([float(at) for at in range(1, 17)], 8)]
    assert set(loads) == {17.0}


def test_equal_work_stays_in_order() -> None:
    assert deal([0.0] * 3 + [1.0], 2, float) == [1.0, 0.0, 0.0, 0.0]
    assert deal("abcdef", 3, lambda _: 0.0) == list("abcdef")
