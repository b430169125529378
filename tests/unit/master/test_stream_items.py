"""`GET /items`: pages of the state that together are all of it, each true for one cursor."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bench.events import apply_to_state
from bench.namespace_model import EPOCH, NamespaceModel, random_step
from gfs import changes
from gfs.changes import Line
from master.state import open_reader
from master.stream_items import page
from tests.unit.projections.views import snapshot_of


def pages(path: Path, limit: int) -> list[list[Line]]:
    state = open_reader(path)
    found: list[list[Line]] = []
    after = 0
    while True:
        lines = changes.decode_lines(page(state, after, limit))
        found.append(lines)
        inodes = [one.keys.ino for one in lines if one.table == "inodes" and one.keys is not None]
        if len(inodes) < limit:
            state.close()
            return found
        after = inodes[-1]


def items_of(lines: list[Line]) -> dict[str, Line]:
    plain = [Line(one.kind, one.table, keys=one.keys, new=one.new) for one in lines]
    return {repr((one.table, one.keys)): one for one in plain}


@pytest.mark.parametrize("limit", [1, 7, 5000])
def test_pages_are_all_inodes_once_with_all_their_names(tmp_path: Path, limit: int) -> None:
    model, rng = NamespaceModel(), random.Random(limit)
    records = [model.format(), *(random_step(model, rng) for _ in range(150))]
    apply_to_state(tmp_path / "state.db", records)
    found = pages(tmp_path / "state.db", limit)
    lines = []
    for one in found:
        first, *middle, last = one
        assert (first.kind, last.kind) == (changes.SNAPSHOT, changes.END)
        assert first.cursor == last.cursor == f"{EPOCH}-{model.position}"
        assert first.items == last.items == len(middle)
        lines += middle
    assert len(lines) == len(model.inodes) + len(model.dirents)
    expected, given = items_of(snapshot_of(model)), items_of(lines)
    assert given.keys() == expected.keys()
    for key, line in expected.items():
        if line.table == "inodes":
            assert given[key].new == line.new
        else:
            theirs, ours = line.new, given[key].new
            assert theirs is not None
            assert ours is not None
            assert ours.ino == theirs.ino
