"""One cluster a module, as its constants ask; a directory a test, seen through every mount.

A module may set CONFIG (TOML), WISHES (arguments of `gfs cluster up`) and ALLOWED
(patterns of ERROR lines that its faults must cause). Any other ERROR fails it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import fuse_missing
from tests.system.faults.processes import FaultyCluster

WISHES = {"chunkservers": 3, "mounts": 2, "goal": 3, "projections": False}


@pytest.fixture(scope="module")
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FaultyCluster]:
    """A running cluster; every process is there again at the start of each test."""
    wishes = {**WISHES, **getattr(request.module, "WISHES", {})}
    if wishes["mounts"] and (reason := fuse_missing()):
        pytest.skip(reason)
    found = FaultyCluster(tmp_path_factory.mktemp("c"))
    try:
        found.up(config=getattr(request.module, "CONFIG", ""), **wishes)
        yield found
    finally:
        found.end()
    lines = found.faults(getattr(request.module, "ALLOWED", ()))
    if lines:
        pytest.fail("unexpected in the logs:\n" + "\n".join(lines[:20]), pytrace=False)


@pytest.fixture
def here(cluster: FaultyCluster, request: pytest.FixtureRequest) -> Path:
    """This test's directory, through the first mount."""
    cluster.up()
    path = cluster.mnt(1) / re.sub(r"\W", "_", request.node.name)[-90:]
    path.mkdir()
    return path


@pytest.fixture
def there(cluster: FaultyCluster, here: Path) -> Path:
    """The same directory, through the second mount."""
    return cluster.mnt(2) / here.name
