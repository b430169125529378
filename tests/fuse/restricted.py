"""Mounts beside those of the cluster, made and ended as mount(8) and umount(8) do it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gfs import mounts
from gfs.cli.main import run
from tests.fuse.conftest import Cluster


@contextmanager
def mounted(
    cluster: Cluster, place: Path, below: Path | None, options: str, *, by_descriptor: bool = False
) -> Iterator[Path]:
    """A mount of the directory that the first mount has at `below`."""
    place.mkdir()
    source = str(cluster.layout.directory)
    if below is not None:
        source += f"//{below.relative_to(cluster.layout.mountpoint(1))}"
    log = place.with_suffix(".log")
    words = [options, f"log={log}"]
    assert run(["mount-helper", source, str(place), "-o", ",".join(filter(None, words))]) == 0
    root = os.open(place, os.O_PATH)
    try:
        # By descriptor, for users who may not walk to the directories of tests.
        yield Path(f"/proc/self/fd/{root}") if by_descriptor else place
    finally:
        os.close(root)
        assert mounts.detach(os.fsencode(place))
    assert b" ERROR " not in log.read_bytes()


def refused(code: int, function: object, *args: object) -> None:
    with pytest.raises(OSError) as caught:
        function(*args)  # type: ignore[operator]
    assert caught.value.errno == code, errno.errorcode[caught.value.errno or 0]
