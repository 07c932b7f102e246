"""The fixtures of tests.support.nodes, for the tests here."""

from tests.support.nodes import cluster, pair, shared_cluster, store

__all__ = ["cluster", "pair", "shared_cluster", "store"]
