import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mue_check import HyperParameters, TrainSpec
from mue_check.data import Data, load_corpus
from mue_check.execute import ensure, machine, memory
from mue_check.execute.batches import _fits, make_batches, measure
from mue_check.execute.memory import runs_of_a_stack
from mue_check.measure import MEASUREMENTS, Measurement, stacks
from mue_check.records import Cell, Columns, Store
from mue_check.training import Stack
from mue_check.user_code import UserCodeExit
from tests.studies import MODEL, make_cell, new_store, records

TRAIN = TrainSpec(steps=20, batch=16, context=16)


def instead(measure: Callable[[Cell, Data], Columns]) -> Measurement:
    """The loss grid with another function."""
    return replace(MEASUREMENTS["loss_grid"], measure=measure)


def make_cells(count: int, steps: int = TRAIN.steps) -> list[Cell]:
    cell = make_cell(
        MODEL,
        replace(TRAIN, steps=steps),
        base=HyperParameters(init_std=0.1),
        corpus_fingerprint=load_corpus("markov").fingerprint,
        values=(2.0**-7, 2.0**-6),
    )
    return [replace(cell, seeds=(seed,)) for seed in range(count)]


@pytest.mark.parametrize("exits", [lambda cell, data: sys.exit(0), lambda cell, data: pytest.exit("x", 0)])
def test_a_router_that_exits_in_training_does_not_end_the_run(
    monkeypatch: pytest.MonkeyPatch, exits: Callable[[Cell, Data], Columns]
) -> None:
    monkeypatch.setitem(MEASUREMENTS, "loss_grid", instead(exits))
    with pytest.raises(UserCodeExit, match=r"Exit.* \(test_local.py:\d+\)"):
        measure(tuple(make_cells(1)))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path)


def test_a_stored_cell_costs_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = make_cells(2)
    ensure([*cells, cells[0]], store)
    assert len(records(store.root)) == 2

    def refuse(cell, corpus):
        raise AssertionError("trained again")

    monkeypatch.setitem(MEASUREMENTS, "loss_grid", instead(refuse))
    ensure(cells, store)


def test_an_error_leaves_nothing_behind(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(cell, corpus):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setitem(MEASUREMENTS, "loss_grid", instead(fail))
        with pytest.raises(RuntimeError):
            ensure(make_cells(1), store)
    assert records(store.root) == {}
    ensure(make_cells(1), store)
    assert len(records(store.root)) == 1


def test_what_an_executor_has_yielded_is_kept_when_it_stops(store: Store) -> None:
    """As when the driver of a cluster ends: each batch is stored at once, and only the others are measured again."""
    cells, sent = make_cells(24, steps=3), []  # three batches

    def stops(batches):
        sent.extend(batches)
        yield batches[1], measure(batches[1])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure(cells, store, stops)
    kept = records(store.root)
    assert sorted(kept) == sorted(f"{cell.key}.json" for cell in sent[1])

    def rest(batches):
        assert batches == [sent[0], sent[2]]
        yield from ((batch, measure(batch)) for batch in batches)

    ensure(cells, store, rest)
    assert len(records(store.root)) == 24
    assert records(store.root).items() > kept.items()


def test_cells_that_differ_in_seeds_train_as_one_stack(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = make_cells(3)
    for cell in cells:  # each alone
        ensure([cell], store)
    together = new_store(store.root / "together")
    asked: list[Cell] = []
    whole = MEASUREMENTS["loss_grid"]
    monkeypatch.setitem(
        MEASUREMENTS, "loss_grid", instead(lambda cell, corpus: (asked.append(cell), whole(cell, corpus))[1])
    )
    ensure(cells, together)
    assert [cell.seeds for cell in asked] == [(0, 1, 2)]
    assert records(together.root) == records(store.root)
    assert sum(together.cost(cell.key) for cell in cells) > 0


def test_a_batch_is_alike_and_no_larger_than_a_stack() -> None:
    cells = [replace(cell, train=replace(TRAIN, batch=64)) for cell in make_cells(5)]
    assert runs_of_a_stack(cells[0]) == 4
    other = replace(cells[0], values=(0.5,))
    large = [replace(cell, train=replace(TRAIN, batch=4096)) for cell in cells[:2]]
    probed = [replace(cell, measurement="optimizer") for cell in cells[:2]]
    batches = make_batches([*cells, other, *large, *probed])
    assert [len(batch) for batch in batches] == [2, 2, 1, 1, 1, 1, 1, 1]
    assert sum(batches, ()) == (*cells, other, *large, *probed)


def crowded(most: int, whole=MEASUREMENTS["loss_grid"]):
    """The measurement on a device that holds so many runs."""

    def measure_loss_grid(cell, corpus):
        if len(cell.values) * len(cell.seeds) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(cell, corpus)

    return measure_loss_grid


@pytest.mark.parametrize(("most", "stacks"), [(6, 1), (2, 3), (1, 6)])
def test_a_stack_that_does_not_fit_is_split_and_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch, most: int, stacks: int
) -> None:
    batch = tuple(make_cells(3, steps=3))
    whole = measure(batch)
    monkeypatch.setitem(MEASUREMENTS, "loss_grid", instead(crowded(most)))
    split = measure(batch)
    assert [each.columns for each in split] == [each.columns for each in whole]
    assert [each.stacks for each in split] == [stacks] * 3
    ensure(batch, store)
    costs = [json.loads(path.read_text()) for path in (store.root / "costs").glob("*.json")]
    assert [cost["stacks"] for cost in costs] == [stacks] * 3


def test_a_run_that_does_not_fit_and_other_errors_are_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEASUREMENTS, "loss_grid", instead(crowded(0)))
    with pytest.raises(torch.OutOfMemoryError):
        measure(tuple(make_cells(2)))
    asked = []

    def fail(cell, corpus):
        asked.append(cell)
        raise RuntimeError("shapes do not fit")

    monkeypatch.setitem(MEASUREMENTS, "loss_grid", instead(fail))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        measure(tuple(make_cells(2)))
    assert len(asked) == 1


def segment(pool: tuple[int, int], total: int, used: int, device: int = 0) -> dict[str, object]:
    return {"segment_pool_id": pool, "total_size": total, "allocated_size": used, "device": device}


def test_unused_memory_of_captured_graphs_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    segments = [segment((0, 0), 500, 200), segment((0, 7), 4000, 100), segment((0, 0), 900, 0, device=1)]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1000, 9000))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: segments)
    assert memory.free_bytes() == 1000 + 300


def test_a_kept_stack_restarts_with_the_runs_of_the_next_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of one shape, as on a GPU: one stack, no second copy of its memory, and the numbers of a new one."""
    made: list[Stack] = []

    def on_cpu(*arguments, device, **options) -> Stack:
        made.append(Stack(*arguments, device=torch.device("cpu"), **options))
        return made[-1]

    monkeypatch.setattr(stacks, "Stack", on_cpu)
    stacks.stacks.cache_clear()
    cells = [replace(cell, device="cuda") for cell in make_cells(3, steps=5)]
    corpus = load_corpus("markov")
    for cell in cells:
        kept = MEASUREMENTS["loss_grid"](cell, corpus)
        assert kept == MEASUREMENTS["loss_grid"](replace(cell, device="cpu"), corpus)
    assert len(made) == 1 + len(cells)
    monkeypatch.setattr(memory, "free_bytes", lambda: 0)
    assert _fits(cells[0])
    stacks.stacks.cache_clear()


def test_a_gpus_stacks_are_as_large_as_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [replace(cell, device="cuda") for cell in make_cells(8)]
    assert torch.cuda.is_available() or runs_of_a_stack(cells[0]) == memory.ELSEWHERE
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(machine, "device_name", lambda device: "none")
    monkeypatch.setattr(memory, "free_bytes", lambda: 10_000)
    monkeypatch.setattr(memory, "bytes_of_a_run", lambda cell: 1_000)
    assert runs_of_a_stack(cells[0]) == 8
    assert [len(batch) for batch in make_batches(cells)] == [4, 4]
    trained = []

    def count(cell, corpus):
        trained.append(len(cell.values) * len(cell.seeds))
        return {"seed": [seed for seed in cell.seeds for _ in cell.values]}

    monkeypatch.setitem(MEASUREMENTS, "loss_grid", instead(count))
    (large,) = measure((replace(cells[0], seeds=tuple(range(9))),))
    assert sum(trained) == 18
    assert max(trained) <= 8
    assert large.stacks == len(trained) == 3
    assert large.environment.device == "none"
    machine.environment.cache_clear()
