"""Bring a local cluster up: start what is missing, return when everything serves.

Stages: master; chunk servers and views; mounts. A stage starts when the one before is
ready, so that nothing begins by waiting for a peer. If something fails or 30 s pass,
the culprit is named with the last lines of its log; the rest keeps running.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import http.client
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gfs import mounts, readiness
from gfs.cluster import plan, processes
from gfs.cluster.asking import cluster_status
from gfs.cluster.layout import Facts, Layout, choose_address, is_free
from gfs.cluster.plan import Spec
from gfs.cluster.processes import Process, Registry, is_alive
from gfs.config import ClientConfig, load_section
from gfs.errors import GfsError, UsageError
from gfs.sections import SECTIONS

READY_S = 30.0
POLL_S = 0.02  # for files and processes
ASK_S = 0.1  # for questions over the network, which cost what they delay

Say = Callable[[str], None]


class StartFailed(Exception):
    """A process did not become ready; the text says which and shows its log."""


@dataclass(frozen=True)
class Wishes:
    """What the caller asked for; None = as before, or the default."""

    chunkservers: int | None = None
    mounts: int | None = None
    goal: int | None = None
    projections: bool | None = None
    shadow: bool | None = None
    config: Path | None = None


def up(layout: Layout, wishes: Wishes, say: Say) -> Facts:
    """Make the cluster if there is none, start what is missing, wait for all of it.

    Args:
      say: gets a line about anything the user should know.

    Raises:
      UsageError: the directory or configuration cannot be used.
      StartFailed: something did not become ready in time.
    """
    if not layout.exists():
        layout.create()
    with exclusive(layout):
        facts = layout.load() if layout.exists() else layout.create()
        _take_over_config(layout, wishes.config)
        _apply(facts, wishes, say)
        layout.ensure_runtime_dir(facts)
        registry = Registry(layout)
        registry.prune()
        why_not = mounts.why_no_mounts() if facts.mounts else None
        wanted = list(_with_addresses(layout, facts, registry, say, with_mounts=not why_not))
        layout.save(facts)
        for note in _start_all(layout, facts, wanted, registry):
            say(note)
    if facts.mounts and why_not:
        say(f"nothing is mounted: {why_not}")
        say("put, get, cat, append, find, search, du and sql work without a mount")
    return facts


@contextlib.contextmanager
def exclusive(layout: Layout) -> Iterator[None]:
    """Keep two calls of up and down on one directory apart; the second waits."""
    with open(layout.lock, "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def client_config(layout: Layout) -> ClientConfig:
    """How a command reaches this cluster.

    Raises:
      UsageError: there is no cluster.
    """
    layout.load()
    # The file of a cluster has a table more than a configuration; its own keys are known.
    config, _ = load_section("client", file=layout.toml)
    assert isinstance(config, ClientConfig)
    return config


def _take_over_config(layout: Layout, given: Path | None) -> None:
    if given is not None:
        for section in SECTIONS:
            load_section(section, file=given)  # a mistake is better found here
        shutil.copyfile(given, layout.config)


def _apply(facts: Facts, wishes: Wishes, say: Say) -> None:
    if wishes.goal is not None:
        facts.goal = wishes.goal
    if wishes.projections is not None:
        facts.projections = wishes.projections
    if wishes.shadow is not None:
        if wishes.shadow and not facts.shadow and facts.addresses:
            say("what runs already hears of the shadow after cluster down and up")
        facts.shadow = wishes.shadow
    if wishes.mounts is not None:
        facts.mounts = wishes.mounts
    if wishes.chunkservers is not None:
        if wishes.chunkservers < facts.chunkservers and facts.addresses:
            say(f"{facts.chunkservers} chunk servers have data here; all of them are started")
        else:
            facts.chunkservers = wishes.chunkservers
    if facts.chunkservers < facts.goal:
        copies = "one copy" if facts.chunkservers == 1 else f"{facts.chunkservers} copies"
        lost = " and is lost with that server's disk" if facts.chunkservers == 1 else ""
        say(
            f"goal {facts.goal} needs {facts.goal} chunk servers; with {facts.chunkservers} each "
            f"chunk has {copies}{lost}, and the status shows it as under-replicated"
        )


def _with_addresses(
    layout: Layout, facts: Facts, registry: Registry, say: Say, *, with_mounts: bool
) -> Iterator[Spec]:
    """The processes, once every port they need is known and free."""
    for name in plan.port_names(facts):
        if name not in facts.addresses:
            facts.addresses[name] = choose_address(facts.addresses.values())
    alive = registry.alive()
    for spec in plan.specs(layout, facts, mounts=with_mounts):
        if spec.name in alive:
            continue
        for name in spec.ports:
            old = facts.addresses[name]
            if not is_free(old):
                facts.addresses[name] = choose_address(facts.addresses.values())
                say(f"{name}: {old} is taken by another program, now {facts.addresses[name]}")
    yield from plan.specs(layout, facts, mounts=with_mounts)


# --- starting ------------------------------------------------------------------------


class Stage:
    """Processes that start together and are waited for until all of them serve.

    One that was found running may have been dying already: a kill is not over when
    the killer goes on. It is started like those that were missing, whenever it ends.
    """

    def __init__(
        self, layout: Layout, members: list[Spec], registry: Registry, deadline: float
    ) -> None:
        self.members = members
        self.started: list[str] = []  # by us
        self._layout = layout
        self._registry = registry
        self._deadline = deadline
        alive = registry.alive()
        self._running = {spec.name: alive.get(spec.name) or self._start(spec) for spec in members}

    def _start(self, spec: Spec) -> Process:
        self._layout.ready(spec.name).unlink(missing_ok=True)
        if spec.mountpoint is not None:
            prepare_mountpoint(spec.mountpoint)
        log = self._layout.log(spec.name)
        process = processes.start(spec.program, spec.arguments, name=spec.name, log=log)
        self._registry.put(process)
        self.started.append(spec.name)
        return process

    def wait(self, name: str, done: Callable[[], bool], pause_s: float = POLL_S) -> None:
        """Until `done`; if that takes too long it is `name` that is to blame.

        Raises:
          StartFailed: it took too long, or a process that we have started has ended.
        """
        while True:
            is_done = done()
            if self._all_run() and is_done:
                return
            if time.monotonic() > self._deadline:
                what = f"was not ready within {READY_S:.0f} s"
                raise StartFailed(_explain(self._layout, name, what))
            time.sleep(pause_s)

    def _all_run(self) -> bool:
        """Whether all were running; those that were not are started."""
        ended = [spec for spec in self.members if not is_alive(self._running[spec.name])]
        for spec in ended:
            if spec.name in self.started:
                raise StartFailed(_explain(self._layout, spec.name, "ended at its start"))
            self._running[spec.name] = self._start(spec)
        return not ended

    def is_ready(self, spec: Spec) -> bool:
        """Whether it has told that it serves."""
        told = readiness.read(self._layout.ready(spec.name))
        if told is None or told.pid != self._running[spec.name].pid:
            return False
        point = spec.mountpoint
        return point is None or mounts.mount_at(os.fsencode(point)) is not None


def _start_all(
    layout: Layout, facts: Facts, wanted: list[Spec], registry: Registry
) -> Iterator[str]:
    """Start what is missing; yields what the started say is lost here."""
    deadline = time.monotonic() + READY_S
    for number in sorted({spec.stage for spec in wanted}):
        members = [spec for spec in wanted if spec.stage == number]
        stage = Stage(layout, members, registry, deadline)
        for spec in members:
            stage.wait(spec.name, functools.partial(stage.is_ready, spec))
        if number == 0:
            stage.wait("master", lambda: _master_answers(layout), ASK_S)
        if any(spec.program == "chunkd" for spec in members):
            stage.wait("master", lambda: _all_registered(layout, facts), ASK_S)
        if number == 1:
            for view in [spec for spec in members if spec.program == "projections"]:
                healthy = functools.partial(_healthy, facts.addresses[view.ports[0]])
                stage.wait(view.name, healthy, ASK_S)
        yield from _notes(layout, stage.started)


def _notes(layout: Layout, names: list[str]) -> Iterator[str]:
    """Each remark once, with the names of those that make it."""
    by_note: dict[str, list[str]] = {}
    for name in names:
        told = readiness.read(layout.ready(name))
        for note in told.notes if told else []:
            by_note.setdefault(note, []).append(name)
    for note, makers in by_note.items():
        yield f"{', '.join(makers)}: {note}"


def prepare_mountpoint(point: Path) -> None:
    """An empty directory with nothing mounted; what a dead process left is detached.

    Raises:
      UsageError: it cannot be made, or something else is in the way.
    """
    path = os.fsencode(point)
    for _ in range(8):  # mounts of ours may be stacked
        if mounts.mount_at(path) is None:
            break
        mounts.detach(path)
    try:
        point.mkdir(exist_ok=True)
        with os.scandir(point) as entries:
            first = next(entries, None)
    except OSError as error:
        raise UsageError(f"cannot use {point} as mountpoint: {error.strerror}") from None
    if first is not None:
        raise UsageError(f"{point} is not empty: {first.name} would be hidden by the mount")


def _explain(layout: Layout, name: str, what: str) -> str:
    log = layout.log(name)
    lines = processes.last_lines(log)
    shown = "".join(f"\n  {line}" for line in lines) if lines else " (empty)"
    return (
        f"{name} {what}; the end of {log}:{shown}\n"
        f"what else was started goes on: gfs cluster down --dir {layout.directory} stops it"
    )


def _master_answers(layout: Layout) -> bool:
    try:
        cluster_status(client_config(layout))
    except GfsError:
        return False
    return True


def _all_registered(layout: Layout, facts: Facts) -> bool:
    """Whether the master hears every chunk server and knows its replicas."""
    try:
        servers = cluster_status(client_config(layout)).get("servers", [])
    except GfsError:
        return False
    heard = sum(1 for one in servers if one.get("alive", True) and one.get("reported", True))
    return heard >= facts.chunkservers


def _healthy(address: str) -> bool:
    # Not httpx, which takes longer to load than all of this command.
    connection = http.client.HTTPConnection(address, timeout=2.0)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
