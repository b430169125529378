"""What the stream keeps encoded for its readers: in the memory meant for it, and right for each."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from typing import cast

import pytest

from bench.namespace_model import NamespaceModel, random_step
from gfs import changes
from gfs.ids import KIB
from gfs.records import Record
from master import stream_log
from master.stream_log import Records, SharedLog, Stretch


class OneByOne:
    """A log of which each look finds one record more, as readers see it who keep up."""

    def __init__(self, count: int) -> None:
        model, rng = NamespaceModel(), random.Random(4)
        self.records: list[Record] = [model.format()]
        self.records += [random_step(model, rng) for _ in range(count)]

    def read(self, position: int) -> list[Record]:
        return [self.records[position - 1]]


def stretches(log: OneByOne, shared: SharedLog) -> Iterator[Stretch]:
    previous = ""
    for number in range(1, len(log.records) + 1):
        stretch = shared.stretch("all", changes.events_of, number, previous)
        assert stretch is not None
        previous = stretch.last
        yield stretch


def test_many_single_events_take_no_more_memory_than_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 512 * KIB
    monkeypatch.setattr(stream_log, "CACHE_BYTES", limit)
    log = OneByOne(2000)
    shared = SharedLog(cast(Records, log))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in stretches(log, shared):
            pass
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert limit / 4 < kept < limit


def test_who_comes_from_elsewhere_is_given_his_own_previous() -> None:
    log = OneByOne(300)
    for stretch in stretches(log, SharedLog(cast(Records, log))):
        if not stretch.events:
            continue
        lines = changes.decode_lines(stretch.lines)
        others = changes.decode_lines(stretch.encoded("1-7"))
        assert others[0].previous == "1-7"
        others[0].previous = lines[0].previous
        assert others == lines
        assert stretch.encoded(stretch.previous) is stretch.lines
