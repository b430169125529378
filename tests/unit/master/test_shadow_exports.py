"""A shadow answers no more than the master would: exports and wishes hold there as well."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from gfs import errors
from gfs import messages as m
from gfs.messages import Access
from master.shadow_reads import Reported, ShadowReads
from tests.unit.master.core.harness import ROOT, Cluster


@pytest.fixture
def c() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.tables.close()


def test_a_session_of_a_shadow_is_confined(c: Cluster) -> None:
    a = c.client("/a")
    d = a.mkdir(b"d")
    f = a.create(b"f", d)
    secret = a.create(b"secret")
    a.do(m.SetAttributes(f, uid=5000))
    reads = ShadowReads(
        c.tables.reader(), Reported(), chunk_bytes=1, goal=1, applied=lambda: (1, len(c.log))
    )
    ask = m.OpenSession(0, "h", "", 1, 0, wish=Access(map_uid=[(1000, 5000, 1)]))
    confines = reads.confine(ask, Access(subtree=b"/d"))
    assert confines is not None
    found = reads.answer(m.Lookup(1, b"f", ROOT), confines)
    assert isinstance(found, m.Entry)
    assert found.inode is not None
    assert (found.ino, found.inode.uid) == (f, 1000)
    with pytest.raises(errors.StaleInode):
        reads.answer(m.Open(secret, os.O_RDONLY, ROOT), confines)
    with pytest.raises(errors.ReadOnly):
        reads.answer(m.Open(f, os.O_RDWR, ROOT), confines)
    a.do(m.Rename(d, b"f", 1, b"out"))  # followed, and out of reach
    with pytest.raises(errors.StaleInode):
        reads.answer(m.Open(f, os.O_RDONLY, ROOT), confines)
    assert reads.confine(m.OpenSession(0, "h", "", 1, 0), Access()) is None
