"""Events a second into the views, and their lag: `python -m bench.events`.

A synthetic log (creates, commits, renames, removals) is served by the real stream
process to the real projections processes. First the backlog is measured, into each
view alone and both at once; then mutations arrive at a steady rate and the time from
a record to the view that answers with it is taken.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from bench.namespace_model import EPOCH, ModelLog, NamespaceModel
from gfs.bearer import authorization
from gfs.changes import DEFAULT_TABLES
from gfs.handshake import create_key
from gfs.records import TABLE_OF, Record
from master.state import State

CLUSTER = "model"
START_S = 20.0
ASK_S = 0.2  # between questions put to a view that is waited for
QUESTIONS = {"search": "/du?path=/", "analytics": "/top?n=1"}


class Workload:
    """Mutations as of a busy filesystem: 43 % creates, 35 % commits, renames, removals."""

    def __init__(self, seed: int = 1) -> None:
        self.model = NamespaceModel()
        self._rng = random.Random(seed)
        self._directories = [1]
        self._files: list[tuple[int, bytes]] = []
        self.first = self.model.format()
        self.first.time_ns = time.time_ns()

    def step(self) -> Record:
        """The next record."""
        rng, model, files = self._rng, self.model, self._files
        roll = rng.random()
        if roll < 0.02 or len(files) < 10:
            parent, name = rng.choice(self._directories), b"dir-%d" % model.position
            record = model.mkdir(parent, name)
            self._directories.append(model.dirents[parent, name].ino)
            key = self._directories[-1], b"first.txt"
            if len(files) < 10:
                files.append(key)
                return self._with_file(record, key)
            return record
        if roll < 0.45:
            parent = rng.choice(self._directories[-200:])
            name = b"report-%d-%06x.log" % (model.position, rng.getrandbits(24))
            files.append((parent, name))
            return model.create(parent, name)
        at = rng.randrange(max(0, len(files) - 5000), len(files))
        parent, name = files[at]
        if roll < 0.80:
            ino = model.dirents[parent, name].ino
            return model.commit(ino, model.inodes[ino].size + rng.randrange(1, 100_000))
        if roll < 0.90:
            to, fresh = rng.choice(self._directories[-50:]), b"moved-%d.gz" % model.position
            files[at] = to, fresh
            return model.rename(parent, name, to, fresh)
        files[at] = files[-1]
        files.pop()
        return model.unlink(parent, name)

    def _with_file(self, record: Record, key: tuple[int, bytes]) -> Record:
        """The first directories begin with a file, in the same record."""
        made = self.model.create(*key)
        self.model.position -= 1
        record.changes += made.changes
        return record


class Stage:
    """A log, its state, the stream's process and projections, in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.key = create_key(directory / "key")
        self.log = ModelLog(directory, CLUSTER)
        self.state_path = directory / "state.db"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.stream_url = ""

    def append(self, records: list[Record]) -> None:
        """Log a group and publish it."""
        self.log.append(records)

    def start_stream(self) -> None:
        """Start the stream; a second start takes the same port."""
        address = self.stream_url or "127.0.0.1:0"
        ready = self._start(
            "stream",
            "master.stream",
            *("--log", str(self.log.directory), "--committed", str(self.log.committed_path)),
            *("--state", str(self.state_path), "--cluster-id", CLUSTER, "--http", address),
            *("--checkpoints", str(self.directory / "checkpoints")),
            *("--key-file", str(self.directory / "key"), "--parent", str(os.getpid())),
        )
        self.stream_url = ready["stream_http"]

    def start_view(self, view: str, *flags: str) -> httpx.Client:
        """Start a projections process; a client for its queries."""
        ready = self._start(
            f"projections-{view}",
            "projections",
            *("--view", view, "--data-dir", str(self.directory / "views")),
            *("--stream", self.stream_url, "--key-file", str(self.directory / "key"), *flags),
        )
        headers = authorization(self.key)
        return httpx.Client(
            base_url=f"http://{ready['http']}", headers=headers, timeout=60, verify=False
        )

    def _start(self, name: str, module: str, *flags: str) -> dict[str, Any]:
        ready = self.directory / f"{name}.ready"
        ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", module, "--ready-file", str(ready), *flags]
        with open(self.directory / f"{name}.log", "ab") as log:
            process = subprocess.Popen(command, stderr=log, stdout=log)
        self.processes[name] = process
        deadline = time.monotonic() + START_S
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.directory / f"{name}.log").read_text()[-2000:])
            time.sleep(0.01)
        answer: dict[str, Any] = json.loads(ready.read_bytes())
        return answer

    def stop(self, name: str, number: int = signal.SIGTERM) -> int:
        """Signal a process and wait for its end; its exit status."""
        process = self.processes.pop(name)
        process.send_signal(number)
        return process.wait(15)

    def cpu_s(self, name: str) -> float:
        """Processor time that a process has used."""
        fields = Path(f"/proc/{self.processes[name].pid}/stat").read_text().rpartition(")")[2]
        user, system = fields.split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End everything."""
        for name in list(self.processes):
            try:
                self.stop(name)
            except subprocess.TimeoutExpired:
                self.stop(name, signal.SIGKILL)
        self.log.close()


@contextmanager
def staged(directory: Path) -> Iterator[Stage]:
    """A stage that ends, whatever happens."""
    stage = Stage(directory)
    try:
        yield stage
    finally:
        stage.close()


def apply_to_state(path: Path, records: list[Record]) -> None:
    """What a master's state holds after `records` (inodes and dirents)."""
    state = State(path, CLUSTER)
    state.begin()
    for record in records:
        for change in record.changes:
            table = TABLE_OF[type(change)]
            if table not in DEFAULT_TABLES:
                continue
            if change.new is None:
                state.delete(table, change.key)
            else:
                state.put(table, change.key, change.new)
    state.set_position(records[-1].position, records[-1].epoch)
    state.commit()
    state.close()


def ask(client: httpx.Client) -> None:
    """A question, as people have them: a view that nobody asks takes its time."""
    view = client.get("/status").json()["view"]
    client.get(QUESTIONS[view]).raise_for_status()


def wait_at(client: httpx.Client, position: int, limit_s: float = 300.0) -> float:
    """Seconds until the view has reached `position`."""
    began = asked = time.monotonic()
    while time.monotonic() - began < limit_s:
        try:
            if time.monotonic() - asked > ASK_S:
                ask(client)
                asked = time.monotonic()
            status = client.get("/status").json()
            if status["position"] >= position and not status["rebuilding"]:
                return time.monotonic() - began
        except (httpx.HTTPError, KeyError):
            pass
        time.sleep(0.02)
    raise TimeoutError(f"{client.get('/status').text}: view not at {position} after {limit_s} s")


def backlog(directory: Path, records: list[Record], views: tuple[str, ...]) -> dict[str, Any]:
    """Rate at which `records` get into fresh views."""
    events = sum(
        TABLE_OF[type(change)] in DEFAULT_TABLES for one in records[1:] for change in one.changes
    )
    with staged(directory) as stage:
        apply_to_state(stage.state_path, records[:1])
        stage.append(records[:1])
        stage.start_stream()
        clients = [stage.start_view(view) for view in views]
        for client in clients:
            wait_at(client, 1)
        for at in range(1, len(records), 500):
            stage.log.append(records[at : at + 500], publish=False)
        before = {name: stage.cpu_s(name) for name in stage.processes}
        began = time.monotonic()
        stage.log.committed.publish(records[-1].position, EPOCH)
        for client in clients:
            wait_at(client, records[-1].position)
        took = time.monotonic() - began
        busy = {name: stage.cpu_s(name) - before[name] for name in stage.processes}
    result: dict[str, Any] = {"views": "+".join(views), "events": events, "seconds": round(took, 2)}
    result["events_per_s"] = round(events / took)
    result["cpu_us_per_event"] = {
        name: round(seconds / events * 1e6, 1) for name, seconds in busy.items()
    }
    return result


def lag(directory: Path, workload: Workload, rate: int, seconds: float) -> dict[str, Any]:
    """Milliseconds from a record to the view, at `rate` mutations a second, both views asked."""
    with staged(directory) as stage:
        apply_to_state(stage.state_path, [workload.first])
        stage.append([workload.first])
        stage.start_stream()
        clients = {view: stage.start_view(view) for view in ("search", "analytics")}
        for client in clients.values():
            wait_at(client, 1)
        before = {name: stage.cpu_s(name) for name in stage.processes}
        for client in clients.values():  # first answers load code; not what is measured
            ask(client)
        began = asked = time.monotonic()
        group = max(1, rate // 100)
        sent = 0
        while time.monotonic() - began < seconds:
            records = [workload.step() for _ in range(group)]
            for record in records:
                record.time_ns = time.time_ns()
            stage.append(records)
            sent += group
            if time.monotonic() - asked > ASK_S:
                for client in clients.values():
                    ask(client)
                asked = time.monotonic()
            time.sleep(max(0.0, began + sent / rate - time.monotonic()))
        took = time.monotonic() - began
        result: dict[str, Any] = {"mutations_per_s": round(sent / took)}
        for view, client in clients.items():
            wait_at(client, workload.model.position)
            status = client.get("/status").json()
            result[view] = {
                "p50_ms": round(status["batch_lag_p50_ms"]),
                "p99_ms": round(status["batch_lag_p99_ms"]),
            }
        for name in stage.processes:
            result[f"cpu_percent_{name}"] = round((stage.cpu_s(name) - before[name]) / took * 100)
    return result


def main() -> None:
    """Print all figures as JSON lines."""
    parser = argparse.ArgumentParser("python -m bench.events", description=__doc__)
    parser.add_argument("--mutations", type=int, default=100_000)
    parser.add_argument("--rate", type=int, default=500, help="mutations a second for the lag")
    parser.add_argument("--seconds", type=float, default=15.0)
    given = parser.parse_args()
    workload = Workload()
    records = [workload.first, *(workload.step() for _ in range(given.mutations))]
    root = Path(tempfile.mkdtemp(prefix="gfs-events-", dir="/var/tmp"))
    try:
        for views in (("search",), ("analytics",), ("search", "analytics")):
            print(json.dumps(backlog(root / "-".join(views), records, views)), flush=True)
        print(json.dumps(lag(root / "lag", Workload(2), given.rate, given.seconds)), flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
