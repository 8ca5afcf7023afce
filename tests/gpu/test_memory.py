"""The memory plan on a real allocator. Run it in a process of its own: what earlier tests hold would count too."""

import pytest
import torch

from mue_check import HyperParameters, Scenario, get_rule, parse_scenario
from mue_check.data import load_corpus
from mue_check.execute.batches import measure
from mue_check.execute.memory import MARGIN, bytes_of_a_run
from mue_check.flops import language_ends, parameter_numbers
from mue_check.records import Cell
from mue_check.spec import TrainSpec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

REFERENCE = parse_scenario("d=32,L=2,H=32")


def test_the_memory_plan_holds() -> None:
    train = TrainSpec(steps=16, batch=8, context=32, warmup=3)
    scenario = Scenario.of(REFERENCE.model, train)
    cell = Cell(
        measurement="loss_grid",
        model=REFERENCE.model,
        prescription=get_rule("complete_mue").prescribe(scenario, scenario),
        base=HyperParameters(init_std=0.1),
        train=train,
        corpus="markov",
        corpus_fingerprint=load_corpus("markov").fingerprint,
        values=(0.01,),
        seeds=tuple(range(64)),
        device="cuda",
    )
    vocab = load_corpus("markov").vocab
    ends = language_ends(REFERENCE.model, context=train.context, vocab=vocab)
    assert bytes_of_a_run(cell) > 16 * parameter_numbers(REFERENCE.model, ends)
    torch.cuda.reset_peak_memory_stats()
    (found,) = measure((cell,))
    assert found.stacks == 1
    # with graphs and evaluation, within the margin that the plan leaves
    assert torch.cuda.max_memory_allocated() < 64 * bytes_of_a_run(cell) / MARGIN + 2**28
    again = measure((cell,))[0]
    assert again.columns["loss"] == pytest.approx(found.columns["loss"], rel=1e-4)
