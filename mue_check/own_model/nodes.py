"""The runs of a user's own model as tasks on a Ray cluster. Import this after ``reach``: Ray reads its token then."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import ray

import mue_check
from mue_check.execute.batches import Measured
from mue_check.execute.cluster import RETRIES, Cluster
from mue_check.own_model.arm import OwnBatch, OwnModel, measured
from mue_check.own_model.candidate import Candidate, ModelError, Recipe
from mue_check.own_model.identity import files_of, identify
from mue_check.own_model.library import find


class Nodes:
    """The executor of a cluster, one task for each run. The user's files travel with the sources of mue_check.

    ``look`` is called here before the first run. ``lr`` is the learning rate at which a model is identified.
    """

    def __init__(self, address: str, gpu_share: float, user: Candidate, look: Callable[[], None], lr: float) -> None:
        if user.recipe is None:
            raise ModelError("a cluster needs the model by name, FILE.py:OBJECT or MODULE:OBJECT, to load it on a node")
        self.recipe, self.look, self.lr = user.recipe, look, lr
        self.cluster = Cluster(address, gpu_share=gpu_share, files=files_of(user))

    def __call__(self, batches: Sequence[OwnBatch]) -> Iterator[tuple[OwnBatch, list[Measured]]]:
        """Yield runs as they are done."""
        if batches:
            self.look()
        yield from self.cluster.each(batches, self._submit)

    def _submit(self, batch: OwnBatch) -> "ray.ObjectRef[list[Measured]]":
        task = _task.options(num_gpus=self.cluster.gpus(batch[0].device))
        return task.remote(batch, self.recipe, self.lr)


def _train(batch: OwnBatch, recipe: Recipe, lr: float) -> list[Measured]:
    """On a node: load the model from the files that were sent, and train."""
    for cell in batch:
        _require_same(recipe, cell.model, cell.device, lr)
    return [measured(_found(recipe), cell) for cell in batch]


# not under the function's name: Ray then pickles the function by reference, and the node imports its own
_task = ray.remote(num_cpus=1, max_retries=RETRIES)(_train)


@cache
def _found(recipe: Recipe) -> Candidate:
    place, separator, attribute = recipe.name.rpartition(".py")
    if separator:
        sent = Path(mue_check.__file__).parents[1] / f"{Path(place).name}.py"
        recipe = replace(recipe, name=f"{sent}{attribute}")
    return find(recipe)


@cache
def _require_same(recipe: Recipe, model: OwnModel, device: str, lr: float) -> None:
    """ModelError unless the model on this node is the one that the study is about."""
    who = identify(_found(recipe), model.axis, model.size, lr)
    if (who.source, who.device) != (model.source, device):
        raise ModelError(
            f"{recipe.name}, on a node of the cluster: it is another model than here, because a library, a file that "
            f"it reads or the device differs ({who.source} on {who.device}, here {model.source} on {device})"
        )
