"""The fixtures of tests.support.nodes, for the tests here."""

from tests.support.nodes import cluster, store

__all__ = ["cluster", "store"]
