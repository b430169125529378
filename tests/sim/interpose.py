"""What production code asks of its host, answered by the world instead.

Clocks, random numbers, threads and sockets: replaced by name, once, in a process that does
nothing but simulate. No module of the product knows of it.
"""

from __future__ import annotations

import os
import random
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import trio

import chunkd.server
import chunkd.workers
import gfs.client.cache_lease
import gfs.client.peers
import gfs.handshake
import master.housekeeping
import master.ledger
from gfs.errors import GfsError
from tests.sim.kernel import Process, World
from tests.sim.network import Network, SimConnection

_T = TypeVar("_T")
KEY = b"k" * 32
CHECKPOINT_CHECK_S = 2.0  # a simulated master lives for a minute
THREAD_S = 0.0005  # about what a job in a thread takes, its disk included


class SimWorkers(chunkd.workers.Workers):
    """Jobs of threads: done some time later, answered some time after that.

    Its methods are put into the class that it stands for, whoever has imported that.
    """

    def __init__(self, _name: str, _count: int, **_how: object) -> None:
        process = _world().current
        assert process is not None
        self._process: Process = process
        self._chance = _world().random(f"workers/{process.name}/{_world().events_total}/{_name}")
        self._one_by_one = _count == 1
        self._free_at = 0.0
        self._began_s = {}

    def submit(self, function: Callable[[], _T], on_done: Callable[[_T | GfsError], None]) -> None:
        """In two halves, so that a crash may fall between the disk and the answer."""
        world, chance, process = _world(), self._chance, self._process
        begin = world.now + chance.random() * THREAD_S
        if self._one_by_one:
            begin = self._free_at = max(begin, self._free_at)
        answer_s = chance.random() * THREAD_S + process.disk_delay_s
        number = world.events_total

        def job() -> None:
            self._began_s[number] = time.monotonic()
            result: _T | GfsError
            try:
                result = function()
            except GfsError as error:
                result = error
            world.after(answer_s, lambda: process.call(lambda: answer(result)))

        def answer(result: _T | GfsError) -> None:
            self._began_s.pop(number, None)
            on_done(result)

        world.at(begin, lambda: process.call(job))

    def stop(self) -> None:
        """Nothing to end."""


class SimOneThread:
    """In place of `master.one_thread.OneThread`."""

    def __init__(self, _name: str) -> None:
        pass

    async def run(self, call: Callable[[], None]) -> None:
        """Run `call` after a while."""
        process = _world().current
        assert process is not None
        with trio.CancelScope(shield=True):
            await trio.sleep(process.disk_delay_s / 2)
            call()
            await trio.sleep(process.disk_delay_s / 2)

    def close(self) -> None:
        """Nothing to end."""


class SimListener:
    """What a daemon sees of a socket that listens."""

    def __init__(self, address: str) -> None:
        self.address = address

    def getsockname(self) -> tuple[str, int]:
        """Where it is bound."""
        host, _, port = self.address.rpartition(":")
        return host, int(port)

    def shutdown(self, _how: int) -> None:
        """Takes no more callers."""

    def close(self) -> None:
        """Closed."""


_here: list[World] = []


def _world() -> World:
    return _here[0]


async def _run_sync(function: Callable[..., _T], *args: Any, **_options: Any) -> _T:
    process = _world().current
    assert process is not None
    await trio.sleep(THREAD_S + process.disk_delay_s)
    return function(*args)


def interpose(world: World, network: Network) -> None:
    """Take the places of clocks, threads, sockets and random numbers, for good."""
    _here[:] = [world]
    chance = world.random("secrets")
    names: list[tuple[Any, str, Any]] = [
        (time, "time_ns", world.wall_ns),
        (time, "time", lambda: world.wall_ns() / 1e9),
        (time, "monotonic", world.monotonic_s),
        (time, "perf_counter", world.monotonic_s),
        (secrets, "randbits", chance.getrandbits),
        (secrets, "token_bytes", chance.randbytes),
        (secrets, "token_hex", lambda length: chance.randbytes(length).hex()),
        (random, "SystemRandom", lambda: world.random(f"system/{chance.random()}")),
        (os, "getpid", lambda: 4242),
        (trio.to_thread, "run_sync", _run_sync),
        (gfs.client.cache_lease, "suspended_s", lambda: 0.0),
        (gfs.handshake, "_connect", network.connect),
        (gfs.handshake, "Connection", SimConnection),
        (master.ledger, "OneThread", SimOneThread),
        (master.housekeeping, "CHECKPOINT_CHECK_S", CHECKPOINT_CHECK_S),
        (threading.Thread, "start", _no_thread),
        (chunkd.server, "listen", lambda address, _unix: [SimListener(address)]),
        (chunkd.server, "serve", lambda found, handle, **how: _serve(network, found, handle, how)),
        (chunkd.server, "load_key", lambda _path: KEY),
        (chunkd.server, "boot_id", _boot_id),
        (chunkd.server, "host_id", lambda: _name()),
        (gfs.client.peers, "host_id", lambda: _name()),
        (chunkd.server, "raise_descriptor_limit", lambda: None),
    ]
    names += [
        (chunkd.workers.Workers, name, getattr(SimWorkers, name))
        for name in ("__init__", "submit", "stop")
    ]
    for where, name, what in names:
        assert hasattr(where, name), f"{where.__name__}.{name} is no more: mend the simulation"
        setattr(where, name, what)
    random.seed(f"{world.seed}/everything else")


def _no_thread(thread: threading.Thread) -> None:
    raise AssertionError(f"thread {thread.name} would run outside of the simulated time")


async def _serve(network: Network, found: list[Any], handle: Any, how: dict[str, Any]) -> None:
    await network.serve(found[0].address, handle, **how)


def _name() -> str:
    process = _world().current
    assert process is not None
    return process.name


def _boot_id() -> str:
    process = _world().current
    assert process is not None
    return process.boot
