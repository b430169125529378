"""Virtual time and simulated processes: several trio runs in one thread, one seed for all.

Each process is a trio run of its own with a clock of its own. The world steps one at a
time: it lets a run do all it can at an instant, asks when it next wants to wake, and goes
to the earliest event of the whole world. A process that hangs is not stepped; one that was
killed is never stepped again, and what it still holds is kept away from the garbage
collector, so that none of its `finally` runs.

This is the one place that uses trio's private names: the scheduler's generator, the
current run, the shuffle's random numbers. `test_kernel.py` guards what is relied on.
"""

from __future__ import annotations

import heapq
import random
import sys
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import trio
from trio._core import _run as scheduler

from tests.sim.disk import PowerLoss

WALL_NS = 1_700_000_000_000_000_000  # what the calendars show when a run begins
ROUNDS_MAX = 20_000  # turns of one run at one instant: more is a loop without waiting
NEVER_S = 1e9
STARTUP_S = 1000.0  # monotonic clocks never begin at 0


class SimulationError(Exception):
    """A claim does not hold; the text says which."""


class World:
    """The queue of what happens next.

    Attributes:
      now: virtual seconds since the beginning.
      current: the process being stepped, or None.
      note: is told what happens, for a trace.
      graveyard: runs that were killed; kept, so that nothing of them ever runs again.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = 0.0
        self.current: Process | None = None
        self.graveyard: list[object] = []
        self.bugs: list[BaseException] = []
        self.events_total = 0
        self.note: Callable[[str], None] = lambda _text: None
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._ties = count()
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
        scheduler._r = self.random("scheduler")

    def random(self, part: str) -> random.Random:
        """Random numbers of one part: a draw more there shifts nobody else's."""
        return random.Random(f"{self.seed}/{part}")

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call at a virtual time; calls of the same instant go in the order of asking."""
        heapq.heappush(self._heap, (max(when, self.now), next(self._ties), call))

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call in so many virtual seconds."""
        self.at(self.now + delay_s, call)

    def run(self, until: float, stop: Callable[[], bool]) -> bool:
        """Go on until `stop()`, looked at after each event, or the virtual time `until`.

        Returns whether `stop()` came true.

        Raises:
          BaseException: the first bug of a process.
        """
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, call = heapq.heappop(heap)
            self.events_total += 1
            call()
            if self.bugs:
                raise self.bugs[0]
            if stop():
                return True
        self.now = max(self.now, until)
        return False

    def wall_ns(self) -> int:
        """What a calendar shows; that of the process being stepped may be off."""
        skew_ns = self.current.wall_skew_ns if self.current is not None else 0
        return WALL_NS + int(self.now * 1e9) + skew_ns

    def monotonic_s(self) -> float:
        """The monotonic clock of the process being stepped, its waits for the disk added."""
        if self.current is None:
            return STARTUP_S + self.now
        return self.current.clock.current_time() + self.current.stolen_s


class ProcessClock(trio.abc.Clock):
    """A monotonic clock that goes a little wrong."""

    def __init__(self, world: World, rate: float, offset_s: float) -> None:
        self.world = world
        self.rate = rate
        self.offset_s = offset_s

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return self.offset_s + self.rate * self.world.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return deadline - self.current_time()


class Process:
    """One program run. `start` it once; `kill` ends it between two steps.

    Attributes:
      error: what its main function raised.
      dead: why it will never be stepped again, or "".
      on_exit: called once when it ended by itself, killed itself (power loss) or was killed.
      stolen_s: time spent inside blocking calls, as a stop watch would see it.
      disk_delay_s: how long its disk takes besides.
      boot: of its machine; another one after a power loss.
    """

    def __init__(
        self, world: World, name: str, *, rate: float = 1.0, wall_skew_ns: int = 0
    ) -> None:
        self.world = world
        self.name = name
        self.wall_skew_ns = wall_skew_ns
        self.clock = ProcessClock(world, rate, STARTUP_S)
        self.dead = ""
        self.suspended = False
        self.stolen_s = self.disk_delay_s = 0.0
        self.boot = ""
        self.error: BaseException | None = None
        self.on_exit: list[Callable[[], None]] = []
        self.on_wake: list[Callable[[], None]] = []
        self._runner: Any = None
        self._turns: Generator[float, Any, None] | None = None
        self._poked = False
        self._wakes_at = float("inf")

    def start(self, main: Callable[[], Awaitable[object]]) -> None:
        """Begin to run `main`."""
        hooks = sys.get_asyncgen_hooks()
        with self.running():
            del scheduler.GLOBAL_RUN_CONTEXT.runner
            self._runner = scheduler.setup_runner(self.clock, [], False, True)
            self._turns = scheduler.unrolled_run(
                self._runner, self._main, (main,), host_uses_signal_set_wakeup_fd=True
            )
        sys.set_asyncgen_hooks(*hooks)
        self.poke()

    async def _main(self, main: Callable[[], Awaitable[object]]) -> None:
        """Once `main` has ended, so has the process: trio's own end would wait for a poll."""
        try:
            await main()
        except BaseException as error:
            self.error = error
        self.die("ended")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Code inside runs as a part of this process, outside of any task of it."""
        before, self.world.current = self.world.current, self
        context = scheduler.GLOBAL_RUN_CONTEXT
        outer = dict(context.__dict__)
        context.__dict__.clear()
        context.runner = self._runner
        try:
            yield
        except PowerLoss:
            self.die("power loss")
        finally:
            context.__dict__.clear()
            context.__dict__.update(outer)
            self.world.current = before

    def poke(self) -> None:
        """Step it at this instant: something has come for it."""
        if not self._poked and not self.dead:
            self._poked = True
            self.world.at(self.world.now, self._turn)

    def call(self, function: Callable[[], object]) -> None:
        """Call as an interrupt of this process would, unless it is dead, then step it."""
        if self.dead:
            return
        if self.suspended:
            self.on_wake.append(lambda: self.call(function))
            return
        try:
            with self.running():
                function()
        except BaseException as error:
            self.world.bugs.append(error)
        self.poke()

    def _turn(self) -> None:
        self._poked = False
        if self.dead or self.suspended or self._turns is None:
            return
        with self.running():
            self._run_on()

    def _run_on(self) -> None:
        """All it can do at this instant; then it is woken when it wants more."""
        assert self._turns is not None
        for _ in range(ROUNDS_MAX):
            delay = self._turns.send(None if self._runner.init_task is None else ())
            if self.dead or delay > 0:
                break
        else:
            raise SimulationError(f"{self.name} turns without end at {self.world.now:.3f} s")
        if not self.dead and delay < NEVER_S:
            self._wake_at(self.world.now + delay / self.clock.rate + 1e-9)

    def _wake_at(self, when: float) -> None:
        if when >= self._wakes_at > self.world.now:
            return
        self._wakes_at = when

        def wake() -> None:
            if self._wakes_at <= self.world.now:
                self._wakes_at = float("inf")
            self._turn()

        self.world.at(when, wake)

    def die(self, why: str) -> None:
        """From now on it does nothing; may be called from inside of it."""
        if self.dead:
            return
        self.dead = why
        self.world.graveyard.append((self._runner, self._turns))
        callbacks, self.on_exit = self.on_exit, []
        for callback in callbacks:
            self.world.at(self.world.now, callback)

    def suspend(self) -> None:
        """SIGSTOP."""
        self.suspended = True

    def wake(self) -> None:
        """SIGCONT: everything that came meanwhile is there at once."""
        if not self.suspended:
            return
        self.suspended = False
        waiting, self.on_wake = self.on_wake, []
        for call in waiting:
            call()
        self.poke()
