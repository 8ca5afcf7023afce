"""Connecting to a Ray cluster, or starting one on this machine. Imports nothing heavy."""

from mue_check.cluster.reach import ClusterInfo, reach, require_cluster, require_listener

__all__ = ["ClusterInfo", "reach", "require_cluster", "require_listener"]
