"""Every test here ends with a check of the whole cluster it made."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.unit.master.core.harness import Client, Cluster

MakeCluster = Callable[..., Cluster]


@pytest.fixture
def make_cluster() -> Iterator[MakeCluster]:
    """Make clusters; each is checked at the end."""
    made: list[Cluster] = []

    def make(**options: object) -> Cluster:
        cluster = Cluster(**options)  # type: ignore[arg-type]
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.check()
        cluster.tables.close()


@pytest.fixture
def c(make_cluster: MakeCluster) -> Cluster:
    """Three chunk servers, goal 3."""
    return make_cluster()


@pytest.fixture
def a(c: Cluster) -> Client:
    """A mount whose user is root."""
    return c.client("/a")


@pytest.fixture
def b(c: Cluster) -> Client:
    """A second mount."""
    return c.client("/b")
