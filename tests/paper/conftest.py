"""Clusters of the master's core, as in tests/unit/master/core: checked at the end of each test."""

from __future__ import annotations

from tests.unit.master.core.conftest import a, b, c, make_cluster

__all__ = ["a", "b", "c", "make_cluster"]
