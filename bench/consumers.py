"""Whether consumers of the change stream slow mutations: `python -m bench.consumers`.

Starts a local cluster, makes files in it through the client library, and measures the rate and
the time of a mutation while nobody, 10 and 100 consumers follow and commit. The three are
measured in turn, round by round, because figures move from minute to minute. Printed for each,
over all rounds: mutations a second, p50 and p99 of one, CPU of the master and of the stream's
process (100 % is one core), how many events a second each consumer got, the least and most of
them, and how long after the last mutation the last consumer had it.
"""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import trio

from bench.processes import cpu_seconds
from bench.setting import directory_option, local_cluster
from gfs.bearer import token
from gfs.client.client import Client, open_client
from gfs.client.settings import ClientSettings
from gfs.cluster.asking import cluster_status, key_of
from gfs.cluster.layout import Layout
from gfs.cluster.processes import Registry
from gfs.cluster.up import Wishes, client_config, up
from gfs.config import ClientConfig
from gfs.ids import ROOT_INO
from gfs.messages import Actor, MakeNode, SetAttributes

LIMIT_S = 180.0
ACTOR = Actor(0, 0)


class Load:
    """Some tasks that make files, and change each, one call after the other."""

    def __init__(self, client: Client, label: str, pause_s: float) -> None:
        self._client = client
        self._label = label
        self._pause_s = pause_s  # from the begin of a task's call to that of the next
        self.times_s: list[float] = []

    async def run(self, tasks: int, seconds: float) -> None:
        """For so long."""
        async with trio.open_nursery() as nursery:
            for number in range(tasks):
                nursery.start_soon(self._one, number, trio.current_time() + seconds)

    async def _one(self, number: int, end: float) -> None:
        made = 0
        while trio.current_time() < end:
            name = f"{self._label}-{number}-{made}".encode()
            done = await self._timed(MakeNode(ROOT_INO, name, stat.S_IFREG | 0o644))
            await self._timed(SetAttributes(done.entry.ino, mode=0o600))
            made += 1

    async def _timed(self, operation: Any) -> Any:
        began = time.perf_counter()
        done = await self._client.link.mutate(operation, ACTOR)
        took = time.perf_counter() - began
        self.times_s.append(took)
        await trio.sleep(max(0.0, self._pause_s - took))
        return done


def _pids(layout: Layout) -> dict[str, int]:
    """Of the master and of the stream's process, its child."""
    master = Registry(layout).alive()["master"].pid
    for children in Path(f"/proc/{master}/task").glob("*/children"):  # a thread has started it
        for child in map(int, children.read_text().split()):
            if b"master.stream" in Path(f"/proc/{child}/cmdline").read_bytes():
                return {"master": master, "stream": child}
    raise click.ClickException("the master has no stream")


def _start_consumers(config: ClientConfig, count: int, commit_s: float) -> Any:
    key = key_of(config)
    assert key is not None
    words = [config.stream.removeprefix("http://"), token(key), str(count), str(commit_s)]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.drivers.consumers", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # its own to step aside in; it ends when standard input does
    )
    assert process.stdout is not None
    if process.stdout.readline() != b"going\n":
        raise click.ClickException("the consumers did not start")
    return process


def _measure(
    layout: Layout, consumers: int, label: str, given: dict[str, Any]
) -> dict[str, float | list[float]]:
    config = client_config(layout)
    pids = _pids(layout)
    readers = _start_consumers(config, consumers, given["commit_s"]) if consumers else None
    before = {name: cpu_seconds([pid]) for name, pid in pids.items()}
    own = cpu_seconds([pids["stream"]])
    began = time.monotonic()
    times, seconds = trio.run(_mutate, config, label, given)
    took = time.monotonic() - began
    stream_s = cpu_seconds([pids["stream"]]) - own
    found: dict[str, Any] = {"times_s": times, "seconds": seconds, "took_s": took}
    found["stream_s"] = stream_s
    # The stream's is a child of the master's and counts with it.
    found["master_s"] = cpu_seconds([pids["master"]]) - before["master"] - stream_s
    if readers is not None:
        position = cluster_status(config)["position"]
        told, _ = readers.communicate(f"{position}\n".encode(), LIMIT_S)
        if readers.returncode:
            raise click.ClickException("a consumer failed")
        found |= json.loads(told.splitlines()[-1])
    return found


async def _mutate(
    config: ClientConfig, label: str, given: dict[str, Any]
) -> tuple[list[float], float]:
    """Times of all mutations, and how long they took together."""
    settings = ClientSettings(
        master=config.master, master_unix=config.master_unix, key=key_of(config)
    )
    async with open_client(settings) as client:
        load = Load(client, label, given["tasks"] / given["rate"] if given["rate"] else 0.0)
        began = time.monotonic()
        await load.run(given["tasks"], given["seconds"])
        return load.times_s, time.monotonic() - began


def _shown(consumers: int, rounds: list[dict[str, Any]]) -> str:
    times = sorted(one for each in rounds for one in each["times_s"])
    seconds = sum(each["seconds"] for each in rounds)
    cpu = {
        name: 100
        * sum(each[f"{name}_s"] for each in rounds)
        / sum(each["took_s"] for each in rounds)
        for name in ("master", "stream")
    }
    text = (
        f"{consumers:4} consumers: {len(times) / seconds:6.0f} mutations/s,"
        f" p50 {times[len(times) // 2] * 1000:5.2f} ms,"
        f" p99 {times[len(times) * 99 // 100] * 1000:6.2f} ms;"
        f" CPU master {cpu['master']:3.0f} %, stream {cpu['stream']:3.0f} %"
    )
    if consumers:
        least = sum(each["events_min"] for each in rounds)
        most = sum(each["events_max"] for each in rounds)
        size = sum(each["bytes"] for each in rounds) / seconds / 2**20
        behind = max(each["behind_ms"] for each in rounds)
        text += (
            f"; each got {least} to {most} events ({least / seconds:.0f}/s), all {size:.1f} MiB/s,"
            f" the last one {behind} ms later"
        )
    return text


@click.command(help=__doc__)
@click.option("--counts", default="0,10,100", show_default=True, help="Consumers, by commas.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=8.0, show_default=True, help="Of a measurement.")
@click.option("--rate", default=0.0, help="Mutations a second; 0: as many as there can be.")
@click.option("--tasks", default=8, show_default=True, help="Mutations under way at a time.")
@click.option("--commit-s", default=5.0, show_default=True, help="A consumer commits each.")
@directory_option
def main(counts: str, rounds: int, directory: Path, **given: Any) -> None:
    measured: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    with local_cluster(directory) as layout:
        layout.save(layout.create())
        up(layout, Wishes(chunkservers=1, mounts=0, projections=False), click.echo)
        for number in range(rounds):
            for count in map(int, counts.split(",")):
                label = f"r{number}c{count}"
                measured[count].append(_measure(layout, count, label, given))
        for count, found in measured.items():
            click.echo(_shown(count, found))


if __name__ == "__main__":
    main()
