"""Which cluster a data directory belongs to."""

from __future__ import annotations

import secrets
from pathlib import Path

from gfs.disk import Disk
from gfs.errors import Corrupt, WrongCluster

ID_BYTES = 8
ID_NAME = "cluster"


def cluster_of(directory: Path, disk: Disk, expected: str) -> str:
    """The cluster's id; a new directory gets the expected one, or a new random one.

    Raises:
      WrongCluster: the directory is another cluster's; nothing is changed.
      Corrupt: the id file is empty.
    """
    path = directory / ID_NAME
    if not disk.exists(path):
        cluster = expected or secrets.token_hex(ID_BYTES)
        disk.replace_file(path, cluster.encode() + b"\n")
        return cluster
    file = disk.open(path)
    cluster = file.pread(256, 0).decode("ascii", "replace").strip()
    file.close()
    if not cluster:
        raise Corrupt(f"{path} names no cluster")
    if expected and cluster != expected:
        raise WrongCluster(f"{directory} belongs to cluster {cluster}, not {expected}")
    return cluster
