"""How views follow: rebuild, events a second, lag, a large rename; and how much they keep."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import apsw
import click
import duckdb
import trio

from bench.views.load import Load, rename_top
from bench.views.stage import VIEWS, Sample, Stage, View
from bench.views.tree import TOP

TAIL = 0.05  # of the records: the last batch of all waits for more to come
QUESTIONS = {"search": "/du?path=/", "analytics": "/report"}
ASK_S = 0.2
_FILES = "SELECT count(*) FROM inodes WHERE mode & 61440 = 32768"  # regular ones
RENAMES = 6
WARM_S = 2.0


def rebuild(stage: Stage, view: str) -> dict[str, Any]:
    """Build a view from the master's newest checkpoint, from the start of its process."""
    running = stage.start_view(view)
    *_, last = running.samples(lambda one: one.position > 0 and not one.rebuilding)
    running.stop()
    return {
        "seconds": round(last.at_s - running.began_s, 2),
        "items": last.events,
        "cpu_us_per_item": round(last.cpu_s / last.events * 1e6, 1),
    }


def backlog(stage: Stage, views: tuple[str, ...], target: int) -> dict[str, Any]:
    """Events a second, while all of `views` follow, from a log that lies there up to `target`.

    They are all open before the first of them begins: one may take seconds longer to open.
    """
    running = [stage.start_view(view, paused=True) for view in views]
    begin = min(one.wait_at(1).position for one in running)
    end = target - TAIL * (target - begin)
    for one in running:
        one.resume()
    found = side_by_side(running, lambda sample: sample.position >= end)
    for one in running:
        one.wait_at(target)
        one.stop()
    return rates(found, begin)


def side_by_side(
    running: Sequence[View], until: Callable[[Sample], bool]
) -> dict[str, list[Sample]]:
    """Samples of views that apply at the same time, each until it satisfies `until`, by name."""

    def sampled(view: View) -> list[Sample]:
        return [*view.samples(until)]

    with ThreadPoolExecutor(len(running)) as pool:
        pending = {one.name: pool.submit(sampled, one) for one in running}
        return {name: one.result() for name, one in pending.items()}


def rates(found: Mapping[str, Sequence[Sample]], begin: int) -> dict[str, Any]:
    """Of views that went from `begin` at the same time: the pace of the slowest.

    Each is measured from its first step on: before it a view may read, for its history, what
    it has long applied. The stream's process, which serves them all, from the first step that
    any took to the last.
    """
    result: dict[str, Any] = {}
    paces, used = [], []
    for name, samples in found.items():
        first, last = next(one for one in samples if one.position > begin), samples[-1]
        events = last.events - first.events
        if not events or last.at_s <= first.at_s:
            raise click.ClickException(f"{name} had it all at the first look: more --mutations")
        paces.append(events / (last.at_s - first.at_s))
        used.append((events, first.stream_cpu_s, last.stream_cpu_s))
        result[name] = {
            "events": events,
            "cpu_us_per_event": round((last.cpu_s - first.cpu_s) / events * 1e6, 1),
        }
    most, begins, ends = zip(*used, strict=True)
    stream_us = (max(ends) - min(begins)) / max(most) * 1e6
    whole = {"events_per_s": round(min(paces)), "stream_cpu_us_per_event": round(stream_us, 1)}
    return {**whole, **result}


def bytes_a_file(stage: Stage) -> dict[str, float]:
    """What each view lies in, when nobody has it open and its journal is written back.

    Of each file that it holds, those in the trash too, which mutations make more.
    """
    search, analytics = (str(stage.layout.data(f"projections-{view}") / view) for view in VIEWS)
    with closing(apsw.Connection(f"{search}.db")) as database:
        database.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # opens the journal
        database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    with duckdb.connect(f"{analytics}.duckdb") as columns:
        columns.execute("CHECKPOINT")
        ((files,),) = columns.execute(_FILES).fetchall()
    found = {
        view: round(sum(path.stat().st_size for path in stage.view_files(view)) / files, 1)
        for view in VIEWS
    }
    return {**found, "sum": round(sum(found.values()), 1)}


async def lag(stage: Stage, load: Load, rate: float, seconds: float) -> dict[str, Any]:
    """Milliseconds from a record to the view that has it, both views asked, as the views say."""
    running = await trio.to_thread.run_sync(_ready, stage)
    over = False

    async def ask(view: View) -> None:
        while not over:
            await trio.to_thread.run_sync(view.client.get, QUESTIONS[view.name])
            await trio.sleep(ASK_S)

    async with trio.open_nursery() as nursery:
        for view in running:
            nursery.start_soon(ask, view)
        await trio.sleep(WARM_S)
        before = {view.name: view.sample() for view in running}
        reached = await load.steady(stage, rate, seconds)
        after = {view.name: view.sample() for view in running}
        over = True
    result: dict[str, Any] = {"mutations_per_s": round(reached)}
    for view in running:
        result[view.name] = _told(view, before[view.name], after[view.name])
        view.stop()
    return result


def _ready(stage: Stage) -> list[View]:
    running = [stage.start_view(view) for view in VIEWS]
    for view in running:
        view.wait_at(1)
    return running


def _told(view: View, before: Sample | None, after: Sample | None) -> dict[str, float]:
    told = view.status()
    assert told is not None
    assert before is not None
    assert after is not None
    share = (after.cpu_s - before.cpu_s) / (after.at_s - before.at_s)
    return {
        "p50_ms": round(told["batch_lag_p50_ms"]),
        "p99_ms": round(told["batch_lag_p99_ms"]),
        "cpu_percent": round(share * 100),
    }


def rename(stage: Stage) -> dict[str, Any]:
    """The directory that holds everything gets another name, and its old one again."""
    running = _ready(stage)
    found: dict[str, dict[str, list[float]]] = {
        view.name: {"apply": [], "seen": []} for view in running
    }
    other = TOP + b"-renamed"
    for number in range(RENAMES):
        names = (TOP, other) if number % 2 == 0 else (other, TOP)
        for view in running:
            view.client.get(QUESTIONS[view.name]).raise_for_status()
        before = {view.name: _apply_s(view) for view in running}
        position = trio.run(partial(rename_top, stage, *names))
        began = time.monotonic()
        for view in running:
            seen = view.wait_at(position).at_s - began
            found[view.name]["seen"].append(seen * 1e3)
            found[view.name]["apply"].append((_apply_s(view) - before[view.name]) * 1e3)
    for view in running:
        view.stop()
    return {
        name: {
            "apply_median_ms": round(statistics.median(one["apply"]), 1),
            "apply_worst_ms": round(max(one["apply"]), 1),
        }
        for name, one in found.items()
    }


def _apply_s(view: View) -> float:
    told = view.status()
    assert told is not None
    seconds: float = told["apply_seconds_total"]
    return seconds
