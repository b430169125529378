"""What must hold when a run has come to rest: the log, the state, the names, the chunks.

The log is the witness of the order in which things happened; so a history of calls is
linearizable if each call's effect stands in the log at a position between what anybody had
been told before it began and what was committed when it ended.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfs.items import CHUNKS, DIRENTS, LANDED, TABLES, ChunkState
from gfs.records import DECODER, ChunkChange, Record
from master.checking import LOST, Problem, check_tables, pages
from master.core.transaction import apply
from master.state import State
from tests.sim.kernel import SimulationError
from tests.sim.names import History, Names
from tests.sim.nodes import CLUSTER
from tests.sim.oracle import Call
from tests.sim.replicas import current, on_disk
from tests.sim.shadow import check_shadow
from tests.sim.tables import dump

if TYPE_CHECKING:
    from tests.sim.parts import Parts

Mutations = dict[tuple[Any, Any], list[Call]]


def check_all(cluster: Parts) -> list[Record]:
    """Raise the first claim that does not hold; returns the whole log."""
    ledger = cluster.master.ledger
    assert ledger is not None
    ledger.state.rollback()
    witness = cluster.master.witness
    witness.check(ledger)
    records = [DECODER.decode(payload) for _, payload in witness.scan(ledger, 1)]
    check_positions(records)
    check_replay(records, ledger.state)
    check_sealed_lengths(records)
    check_requests(cluster, records)
    names = Names(cluster.requests.operations)
    for record in records:
        names.apply(record)
    check_names(names, ledger.state)
    check_calls(cluster, names.history)
    problems: list[Problem] = []
    check_tables(ledger.state, problems.append)
    problems = [problem for problem in problems if problem.kind != LOST]  # never acknowledged
    if problems:
        raise SimulationError(f"the state contradicts itself: {problems[:3]}")
    check_replicas(cluster, ledger.state)
    if cluster.shadow is not None:
        check_shadow(cluster.shadow, cluster.master)
    return records


def check_positions(records: list[Record]) -> None:
    """From 1, without a gap, in one order of epochs and times."""
    before: Record | None = None
    for position, record in enumerate(records, 1):
        if record.position != position:
            raise SimulationError(f"the log has {record.position} where {position} belongs")
        if before is not None and (record.epoch < before.epoch or record.time_ns <= before.time_ns):
            raise SimulationError(f"record {position} is older than the one before")
        before = record


def check_replay(records: list[Record], state: State) -> None:
    """The log from its beginning gives the state that there is."""
    replayed = State(Path(":memory:"), CLUSTER)
    replayed.begin()
    for record in records:
        apply(record, replayed)
    replayed.commit()
    for table in TABLES:
        if table != LANDED:
            theirs, ours = dump(replayed, table), dump(state, table)
            if theirs != ours:
                differing = {
                    key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key)
                }
                raise SimulationError(
                    f"replay and state differ in {table}: {sorted(differing)[:3]}"
                )
    replayed.close()


def check_sealed_lengths(records: list[Record]) -> None:
    """A chunk has one sealed length; it goes only when nothing refers to it."""
    lengths: dict[int, int] = {}
    for record in records:
        for change in record.changes:
            if type(change) is not ChunkChange:
                continue
            handle, old, new = change.key[0], change.old, change.new
            if new is None or new.state == ChunkState.OPEN:
                pass
            elif lengths.setdefault(handle, new.length) != new.length:
                raise SimulationError(f"chunk {handle:x} was sealed at two lengths")
            if new is None and old is not None and old.references:
                raise SimulationError(f"chunk {handle:x} was dropped with references to it")
            if new is not None and new.state == ChunkState.CONDEMNED and new.references:
                raise SimulationError(f"chunk {handle:x} was condemned with references to it")


def check_requests(cluster: Parts, records: list[Record]) -> None:
    """A numbered request has one record, and whoever was answered was told of that one.

    An answer from before that record is of a decision that changed nothing, and was lost: else
    nobody would have asked again. The record's own answer need not have left, if nobody was
    there to take it until the session ended.
    """
    landed: dict[tuple[int, int], int] = {}
    for record in records:
        if record.number:
            key = record.session, record.number
            if key in landed:
                raise SimulationError(f"request {key} is in the log twice")
            landed[key] = record.position
    for key, positions in cluster.requests.answers.items():
        if key in landed and max(positions) > landed[key]:
            raise SimulationError(f"request {key} was answered {positions}, logged {landed[key]}")


def check_names(names: Names, state: State) -> None:
    """The second opinion and the state agree on every name, those below copies too."""
    found = {key: dirent.ino for key, dirent in pages(state, DIRENTS)}
    if found != names.entries:
        differing = sorted(found.items() ^ names.entries.items())
        raise SimulationError(f"the state has other names than follow: {differing[:3]}")


def at(changes: list[tuple[int, int]], position: int) -> int:
    """What the name meant as of a position."""
    index = bisect_right(changes, (position, 1 << 62)) - 1
    return changes[index][1] if index >= 0 else 0


def check_calls(cluster: Parts, history: History) -> None:
    """Each call's outcome was true at some moment while it was under way."""
    names: dict[int, set[bytes]] = defaultdict(set)
    for parent, name in history:
        names[parent].add(name)
    mutations = _mutations_by_name(cluster.oracle.calls)
    for call in cluster.oracle.calls:
        if isinstance(call.outcome, int):
            if call.outcome and call.outcome < call.low:
                raise SimulationError(f"{call} took place before it began")
            if call.kind == "lookup":
                _check_lookup(call, history, mutations)
            elif call.kind == "readdir":
                _check_listing(call, history, names)


def _mutations_by_name(calls: list[Call]) -> Mutations:
    """All mutations by the names that they may change."""
    found: Mutations = defaultdict(list)
    for call in calls:
        operation = call.details[0] if call.details else None
        for parent, name in (("parent", "name"), ("new_parent", "new_name")):
            key = getattr(operation, parent, None), getattr(operation, name, None)
            if None not in key:
                found[key].append(call)
    return found


def _low(call: Call, mutations: list[Call]) -> int:
    """From which position on the call's answer may be.

    What has returned is seen. While a mutation is under way both are right, though others may
    have seen it already: it changes what its own mount has cached when its answer arrives, and
    that answer waits for mounts that are cut off while later ones of other names return.
    """
    low = call.low
    for mutation in mutations:
        if mutation.begin <= call.begin and (mutation.end < 0 or mutation.end >= call.begin):
            if isinstance(mutation.outcome, int):
                low = min(low, mutation.outcome - 1)
            else:  # an error may be told of what was done: the session ended meanwhile
                low = min(low, mutation.low)
    return low


def _check_lookup(call: Call, history: History, mutations: Mutations) -> None:
    parent, name = call.details
    assert isinstance(parent, int)
    assert isinstance(name, bytes)
    changes = history.get((parent, name), [])
    low = _low(call, mutations.get((parent, name), []))
    meant = {at(changes, low)}
    meant |= {ino for position, ino in changes if low < position <= call.high}
    if call.found not in meant:
        raise SimulationError(f"{call} found what never stood there meanwhile: {meant}")


def _check_listing(call: Call, history: History, names: dict[int, set[bytes]]) -> None:
    (parent,) = call.details
    assert isinstance(parent, int)
    mine = {name: history[parent, name] for name in names[parent]}
    moments = {call.low}
    for changes in mine.values():
        moments |= {position for position, _ in changes if call.low < position <= call.high}
    for moment in moments:
        listing = {name: ino for name, changes in mine.items() if (ino := at(changes, moment))}
        if listing == call.found:
            return
    raise SimulationError(f"{call} lists what never stood there")


def check_replicas(cluster: Parts, state: State) -> None:
    """Of a sealed chunk every current replica is right on its disk; as many as the goal says."""
    for (handle,), chunk in pages(state, CHUNKS):
        if chunk.state != ChunkState.SEALED or not chunk.references:
            continue
        found = {
            server.name: on_disk(server, replica)
            for server in cluster.servers
            if (replica := current(server, handle, chunk)) is not None
        }
        expected = (chunk.length, chunk.checksum)
        if set(found.values()) - {expected}:
            raise SimulationError(f"chunk {handle:x}, sealed as {expected}, is {found}")
        if len(found) < min(chunk.goal, len(cluster.servers)):
            raise SimulationError(f"chunk {handle:x} is only on {sorted(found)}")
