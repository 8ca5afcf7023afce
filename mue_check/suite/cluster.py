"""``pytest suites/ --cluster ADDRESS|local``: xdist workers run the tests, and a Ray cluster measures the cells."""

from __future__ import annotations

import os
from functools import cache

import pytest

from mue_check.cluster import ClusterInfo, reach, require_cluster
from mue_check.errors import SpecError
from mue_check.suite.workers import refuse_other_workers, start_workers

MOST_WORKERS = 16
"""Default limit on workers, since each is a process with torch on pytest's machine."""

_CLUSTER = pytest.StashKey[ClusterInfo]()


def add_options(group: pytest.OptionGroup) -> None:
    """The options of a run on a cluster."""
    group.addoption(
        "--cluster", metavar="HOST:PORT|local", help="measure on this Ray cluster; local starts one on this machine"
    )
    group.addoption(
        "--cluster-workers", type=int, metavar="K", help="tests to run at once (default: the cluster's slots)"
    )
    group.addoption("--gpu-share", type=float, metavar="F", help="GPU share of each task on a cluster (default: 1)")


def start(config: pytest.Config) -> None:
    """Connect to or start the cluster of the command line, and start workers that use it. SpecError if that fails."""
    option = config.option
    if hasattr(config, "workerinput"):
        return
    _check(config)
    if option.cluster is None or option.collectonly:
        return
    from mue_check.catalog import get_tier

    tier, share = get_tier(option.tier or "smoke"), option.gpu_share or 1.0
    found = reach(option.cluster, config.add_cleanup)
    slots = found.slots(tier.device, share)
    if slots < 1:
        what = f"{share:g} GPU" if tier.device == "cuda" else "a CPU"
        raise SpecError(f"--cluster {option.cluster}: --tier {tier.name} needs {what} per task, and the {found}")
    config.stash[_CLUSTER] = found
    start_workers(config, [found.environment] * (option.cluster_workers or min(slots, MOST_WORKERS)))


def join(config: pytest.Config) -> None:
    """Measure on the cluster from now on, in a worker."""
    if config.option.cluster is None or not hasattr(config, "workerinput"):
        return
    from mue_check.execute import use
    from mue_check.execute.cluster import Cluster

    @cache
    def joined() -> Cluster:
        cluster = Cluster(os.environ["RAY_ADDRESS"], gpu_share=config.option.gpu_share or 1.0)
        config.add_cleanup(cluster.close)
        return cluster

    # connect at the first question, so that a worker without a cluster fails its tests and not the run
    use(lambda batches: joined()(batches))


def header(config: pytest.Config) -> list[str]:
    """A line about the cluster."""
    found = config.stash.get(_CLUSTER, None)
    return [f"mue_check: {found}"] if found else []


def _check(config: pytest.Config) -> None:
    option = config.option
    for name in ("cluster_workers", "gpu_share"):
        if option.cluster is None and getattr(option, name) is not None:
            raise SpecError(f"--{name.replace('_', '-')} goes with --cluster")
    if option.cluster is None:
        return
    require_cluster(option.cluster, 1.0 if option.gpu_share is None else option.gpu_share)
    if option.cluster_workers is not None and option.cluster_workers < 1:
        raise SpecError(f"--cluster-workers {option.cluster_workers}: must be at least 1")
    if getattr(option, "gpus", None) is not None:
        raise SpecError("--cluster: cannot be combined with --gpus: the GPUs are those of the cluster")
    refuse_other_workers(config, "--cluster")
