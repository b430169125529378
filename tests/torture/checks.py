"""What is compared in the end, on the real cluster: content, names, views, log and state."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from gfs.disk import PosixDisk
from gfs.ids import MIB
from gfs.items import TABLES
from master.core.tables import ReadTables
from master.ledger import apply_payload
from master.log_reader import CommittedPosition, LogReader
from master.state import MemoryTables, open_reader
from tests.torture.cluster import TortureCluster
from tests.torture.content import landed, seed_of
from tests.torture.expected import Expected, Written, names_differ, records_differ
from tests.torture.roles import LOGS
from tests.torture.worker import BASE

SCAN = 1000


def walk(top: Path) -> dict[str, bool]:
    """Path below `top` -> whether it is a directory."""
    found: dict[str, bool] = {}
    for directory, directories, files in os.walk(top, onerror=_raise):
        base = os.path.relpath(directory, top)
        prefix = "" if base == "." else f"{base}/"
        found |= {f"{prefix}{name}": True for name in directories}
        found |= {f"{prefix}{name}": False for name in files}
    return found


def _raise(error: OSError) -> None:
    raise error


def check_names(top: Path, expected: Expected) -> list[str]:
    """The namespace equals what workers know."""
    return names_differ(expected, walk(top))


def check_files(top: Path, expected: Expected, excused: Callable[[Written], bool]) -> list[str]:
    """Every file that was fsynced or closed has its content."""
    problems = []
    for name, written in sorted(expected.files.items()):
        if written is None:
            continue
        try:
            content = (top / name).read_bytes()
        except OSError as error:
            problems.append(f"{name}: {error}")
            continue
        whole = len(content) == written.size and seed_of(content) == written.seed
        if not whole and not excused(written):
            kind = "fsynced" if written.mount == 0 else "closed"
            problems.append(f"{name}: {kind} with {written.size} bytes, reads {len(content)}")
    return problems


def check_logs(top: Path, expected: Expected) -> list[str]:
    """Every acknowledged record stands there once, whole, in its writer's order."""
    problems = []
    for log in LOGS:
        counts, wrong = landed((top / log).read_bytes())
        problems += [f"{log}: {one}" for one in wrong]
        problems += records_differ(expected.lives, counts, log)
    return problems


def check_views(cluster: TortureCluster, mountpoint: Path) -> list[str]:
    """The search view, waited for, has the paths and sizes of the mount; the other agrees."""
    rows = cluster.gfs("find", f"/{BASE}", "--wait", "--json").splitlines()
    seen = {str(row["path"]): int(row["size"]) for row in map(json.loads, rows)}
    there = {
        f"/{BASE}/{name}": is_directory for name, is_directory in walk(mountpoint / BASE).items()
    }
    there[f"/{BASE}"] = True
    problems = [f"not in the search view: {path}" for path in sorted(there.keys() - seen.keys())]
    problems += [f"only in the search view: {path}" for path in sorted(seen.keys() - there.keys())]
    for path in sorted(there.keys() & seen.keys()):
        size = os.lstat(mountpoint / path[1:]).st_size
        if not there[path] and size != seen[path]:
            problems.append(f"{path} has {size} bytes, in the search view {seen[path]}")
    counts = {view: _names_in(cluster, view) for view in ("search", "analytics")}
    if len(set(counts.values())) > 1:
        problems.append(f"the views have different numbers of names: {counts}")
    return problems


def _names_in(cluster: TortureCluster, view: str) -> str:
    query = "SELECT count(*) AS names FROM dirents"
    answer = json.loads(cluster.gfs("sql", "--wait", "--json", "--view", view, query))
    return str(answer["rows"])


def check_replay(directory: Path, cluster_id: str) -> list[str]:
    """The log, applied from its first record to empty tables, gives the state; all is stopped."""
    committed = CommittedPosition(directory / "committed")
    reader = LogReader(directory / "log", PosixDisk(), cluster_id, committed)
    state = open_reader(directory / "state.db")
    tables = MemoryTables(cluster_id)
    try:
        if reader.first_position != 1:
            return [f"the log begins at {reader.first_position}: nothing to replay from"]
        position = 1
        while records := reader.read(position):
            for record in records:
                tables.begin()
                apply_payload(tables, record.payload)
                tables.set_position(record.position, record.epoch)
                tables.commit()
            position = records[-1].position + 1
        problems = [] if state.applied == tables.reader().applied else ["positions differ"]
        for name in TABLES:
            problems += _tables_differ(name, state, tables)
        return problems
    finally:
        tables.close()
        state.close()
        reader.close()
        committed.close()


def check_shadow(master: Path, shadow: Path, cluster_id: str) -> list[str]:
    """The shadow's log is the master's, up to where it has come; all is stopped."""
    committed = [CommittedPosition(directory / "committed") for directory in (master, shadow)]
    readers = [
        LogReader(directory / "log", PosixDisk(), cluster_id, one)
        for directory, one in zip((master, shadow), committed, strict=True)
    ]
    try:
        position = int(max(reader.first_position for reader in readers))
        while copied := readers[1].read(position):
            original = readers[0].read(position, limit_bytes=8 * MIB)
            for one, other in zip(copied, original, strict=False):
                if one != other:
                    return [f"record {one.position} of the shadow is not the master's"]
            if not original:
                return [f"the shadow has record {position}, the master has not"]
            position += min(len(copied), len(original))
        return []
    finally:
        for reader in readers:
            reader.close()
        for one_committed in committed:
            one_committed.close()


def _tables_differ(name: str, state: ReadTables, replayed: ReadTables) -> list[str]:
    after, count = None, 0
    while True:
        one = state.scan(name, after=after, limit=SCAN)
        other = replayed.scan(name, after=after, limit=SCAN)
        if one != other:
            differing = (pair for pair in zip(one, other, strict=False) if pair[0] != pair[1])
            shown = next(map(repr, differing), f"{len(one)} and {len(other)} items")
            return [f"replay of {name} differs behind {count} items: {shown}"]
        if not one:
            return []
        after, count = one[-1][0], count + len(one)
