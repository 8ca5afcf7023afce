"""Measure cells as Ray tasks, on nodes that share no disk and may die at any time.

Everything a task needs is sent with it: the sources of mue_check and of a user's code as Ray's working folder, and
corpora through the object store. A node needs Python, torch and mue_check's other dependencies.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from mue_check.cluster import require_listener
from mue_check.data import Data, give_data, load_data
from mue_check.errors import ClusterError
from mue_check.execute.batches import Batch, Measured, measure
from mue_check.execute.shipping import Parcel, ship_sources, unpack
from mue_check.models.user_router.loaded import loaded_router
from mue_check.records import AnyCell, Cell
from mue_check.routing.variants import USER_ROUTERS, is_users
from mue_check.spec import Experts
from mue_check.training.out_of_memory import is_out_of_memory
from mue_check.user_code import first_line

RETRIES = 3
"""How often a batch is retried after its process or node died."""

Notices = dict[str, str]
B = TypeVar("B", bound=Sequence[AnyCell])
T = TypeVar("T")


class Cluster:
    """The executor of a Ray cluster, with one task per batch. This process becomes a driver of the cluster.

    ``address`` is HOST:PORT of the head, and this machine must be a node. ``gpu_share`` is the share of a GPU that a
    task declares. Users' routers that are loaded already are sent along, and other ``files`` with the names of their
    modules. ClusterError if it cannot be joined.
    """

    def __init__(self, address: str, *, gpu_share: float = 1.0, files: Mapping[Path, str] | None = None) -> None:
        try:
            require_listener(address)
        except ClusterError as error:
            raise ClusterError(f"cluster {address}: {error}") from None
        self.gpu_share = gpu_share
        self._corpora: dict[str, ray.ObjectRef[Data]] = {}
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Tip: In future versions of Ray", FutureWarning)  # of tasks without a GPU
            self._parcels = ship_sources(Path(folder), files or {})
            try:
                ray.init(
                    address=address,
                    runtime_env={"working_dir": folder},
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            except Exception as error:  # RuntimeError, ConnectionError, and Ray's own
                raise ClusterError(f"cluster {address}: {first_line(error) or type(error).__name__}") from None

    def close(self) -> None:
        """Leave the cluster. Tasks of this process end."""
        ray.shutdown()

    def __call__(self, batches: Sequence[Batch]) -> Iterator[tuple[Batch, list[Measured]]]:
        """Yield batches of cells of the reference models as they are done."""
        for batch, (measured, notices) in self.each(batches, self._submit):
            for kind, words in notices.items():
                loaded_router(_router(batch[0])).notices.setdefault(kind, words)
            yield batch, measured

    def each(self, batches: Sequence[B], submit: Callable[[B], "ray.ObjectRef[T]"]) -> Iterator[tuple[B, T]]:
        """Yield batches as they are done, with what their tasks return; ``submit`` starts the task of a batch.

        Errors are raised, out of memory only after a second attempt.
        """
        waiting = {submit(batch): batch for batch in batches}
        retried: list[B] = []
        try:
            while waiting:
                (done,), _ = ray.wait(list(waiting), num_returns=1)
                batch = waiting.pop(done)
                try:
                    answer = ray.get(done)
                except RayTaskError as error:
                    if not isinstance(error.cause, Exception):
                        raise
                    if is_out_of_memory(error.cause) and batch not in retried:
                        retried.append(batch)
                        waiting[submit(batch)] = batch
                        continue
                    raise error.cause from error
                except RayError as error:
                    lost = f"the cluster lost {batch[0]}, after up to {RETRIES} retries"
                    raise ClusterError(f"{lost}: {first_line(error) or type(error).__name__}") from None
                yield batch, answer
        finally:
            for task in waiting:
                ray.cancel(task, force=True)

    def gpus(self, device: str) -> float:
        """What a task on that device declares."""
        return self.gpu_share if device == "cuda" else 0.0

    def _submit(self, batch: Batch) -> "ray.ObjectRef[tuple[list[Measured], Notices]]":
        cell = batch[0]
        router = _router(cell)
        if router and router not in self._parcels:
            raise ClusterError(f"router {router!r} was not loaded from a module or a file when the cluster was joined")
        if cell.corpus not in self._corpora:
            self._corpora[cell.corpus] = ray.put(load_data(cell.corpus).in_memory())
        task = _task.options(num_gpus=self.gpus(cell.device))
        return task.remote(batch, self._corpora[cell.corpus], self._parcels.get(router))


def _measure(batch: Batch, data: Data, parcel: Parcel | None) -> tuple[list[Measured], Notices]:
    """On a node: measure a batch. Returns the numbers, and notices about the user's router."""
    give_data(batch[0].corpus, data)
    if parcel is not None and parcel.name not in USER_ROUTERS:
        unpack(parcel)
    measured = measure(batch)
    return measured, loaded_router(parcel.name).notices if parcel is not None else {}


# not under the function's name: Ray then pickles the function by reference, and the node imports its own
_task = ray.remote(num_cpus=1, max_retries=RETRIES)(_measure)


def _router(cell: Cell) -> str:
    """The name of a cell's router if it is a user's, else an empty string."""
    mixture = cell.model.feed_forward
    return mixture.router if isinstance(mixture, Experts) and is_users(mixture.router) else ""
