"""How long a master is away when it is killed and started again, with mounts that go on.

    python -m bench.restart [--files N] [--rounds N] [--shadow]

Makes a state of N files (a record each, applied as a master applies them), starts a local
cluster with two mounts on it, and kills the master with SIGKILL while one program appends,
one copies and one makes files. Printed of each round, in seconds from the kill:

    read       the new master has answered its first question
    change     the first file made through the first mount, after its session is back
    stalls     the longest call of each program
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import click
from msgspec.structs import replace

from bench.setting import directory_option, local_cluster
from gfs.cluster import plan, processes
from gfs.cluster.asking import cluster_status
from gfs.cluster.layout import Layout
from gfs.cluster.processes import Registry
from gfs.cluster.up import Wishes, client_config, up
from gfs.disk import PosixDisk
from gfs.errors import GfsError
from gfs.ids import CHUNK_BYTES, MIB, ROOT_INO, draw
from gfs.items import INODES, Chunk, ChunkKind, ChunkState, Dirent, Extent, Inode
from gfs.records import (
    AnyChange,
    ChunkChange,
    DirentChange,
    ExtentChange,
    InodeChange,
    Record,
    RecordActor,
)
from master.core.transaction import apply
from master.ledger import Ledger

FILES_IN_DIRECTORY = 1000
GROUP = 500
RUN_S = 8.0
LIMIT_S = 60.0
DIRECTORY, FILE = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o644


def make_files(directory: Path, cluster: str, files: int, *, file_bytes: int = 0) -> None:
    """Log and state of a master as if `files` files had been made, a thousand a directory.

    With `file_bytes` each has an extent, many in a chunk, of which no server has a copy.
    """
    ledger = Ledger(
        directory, PosixDisk(), cluster, segment_bytes=64 * MIB, uid=os.getuid(), gid=os.getgid()
    )
    number = parent = 0
    now_ns = time.time_ns()
    root: Inode | None = ledger.state.get(INODES, (ROOT_INO,))
    assert root is not None
    records: list[Record] = []
    ledger.begin()
    for made in range(files):
        wanted = [(FILE, b"file%07d" % made)]
        if made % FILES_IN_DIRECTORY == 0:
            wanted.insert(0, (DIRECTORY, b"directory%05d" % (made // FILES_IN_DIRECTORY)))
        for mode, name in wanted:
            number += 1
            ino = draw(ledger.epoch, number)
            at = parent if mode == FILE else ROOT_INO
            inode = Inode(mode, 0, 0, 1 if mode == FILE else 2, 0, now_ns, now_ns, now_ns)
            if mode == DIRECTORY:
                parent, inode.parent = ino, ROOT_INO
            changes: list[AnyChange] = [
                InodeChange((ino,), None, inode),
                DirentChange((at, name), None, Dirent(ino, stat.S_IFMT(mode))),
            ]
            if mode == DIRECTORY:
                grown = replace(root, nlink=root.nlink + 1)
                changes.append(InodeChange((ROOT_INO,), root, grown))
                root = grown
            if mode == FILE and file_bytes:
                changes += _stored(ino, inode, made, files, file_bytes)
            position = ledger.position + len(records) + 1
            record = Record(position, ledger.epoch, now_ns, "create", RecordActor(), changes)
            apply(record, ledger.state)
            records.append(record)
        if len(records) >= GROUP:
            ledger.commit_now(records)
            records = []
            ledger.begin()
            ledger.log.prepare()
    ledger.commit_now(records)
    ledger.state.checkpoint_wal()
    ledger.close()


def _stored(ino: int, inode: Inode, made: int, files: int, size: int) -> list[AnyChange]:
    """The extent of file number `made`; with the first in a chunk that chunk."""
    inode.size = inode.stored = size
    in_chunk = CHUNK_BYTES // size
    first = made - made % in_chunk
    handle = draw(1, 1 + first)
    found: list[AnyChange] = []
    if made == first:
        used = min(in_chunk, files - first) * size
        chunk = Chunk(1, ChunkKind.PRIVATE, ChunkState.SEALED, 3, used, 0, used)
        found.append(ChunkChange((handle,), None, chunk))
    extent = Extent(size, handle, (made - first) * size)
    return [*found, ExtentChange((ino, 0), None, extent)]


def _restart_master(layout: Layout) -> float:
    """SIGKILL, and the same command again; when the kill was."""
    registry = Registry(layout)
    process = registry.alive()["master"]
    spec = next(one for one in plan.specs(layout, layout.load()) if one.name == "master")
    os.kill(process.pid, signal.SIGKILL)
    killed = time.monotonic()
    processes.wait_for_end([process], LIMIT_S)
    log = layout.log("master")
    registry.put(processes.start(spec.program, spec.arguments, name=spec.name, log=log))
    return killed


def _until_it_answers(layout: Layout) -> float:
    """When the master first says how it is."""
    config = client_config(layout)
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        try:
            cluster_status(config)
        except GfsError:
            time.sleep(0.01)
        else:
            return time.monotonic()
    raise click.ClickException("the master does not answer")


def start_program(kind: str, path: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bench.drivers.stalls", kind, str(path), str(RUN_S)]
    program = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert program.stdout is not None
    program.stdout.readline()
    return program


def measure(layout: Layout, number: int) -> dict[str, float]:
    """One round: seconds by what was waited for."""
    points = [layout.mountpoint(1), layout.mountpoint(2)]
    programs = [
        start_program("append", points[0] / f"log{number}"),
        start_program("copy", points[1] / f"copy{number}"),
        start_program("create", points[1] / f"made{number}-"),
    ]
    time.sleep(0.5)
    killed = _restart_master(layout)
    read = _until_it_answers(layout) - killed
    (points[0] / f"first{number}").touch()
    found = {"read": read, "change": time.monotonic() - killed}
    for program in programs:
        told = json.loads(program.communicate(timeout=LIMIT_S)[0].splitlines()[-1])
        if told["error"]:
            raise click.ClickException(f"{told['kind']}: {told['error']}")
        found[f"{told['kind']} stall"] = told["longest_s"]
    return found


@click.command(help=__doc__)
@click.option("--files", default=1_000_000, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--shadow/--no-shadow", default=False, help="With a shadow master that follows.")
@directory_option
def main(files: int, rounds: int, shadow: bool, directory: Path) -> None:
    with local_cluster(directory) as layout:
        facts = layout.create()
        layout.save(facts)
        began = time.monotonic()
        make_files(layout.data("master"), facts.id, files)
        click.echo(f"{files} files made in {time.monotonic() - began:.0f} s")
        up(layout, Wishes(mounts=2, projections=False, shadow=shadow), click.echo)
        for number in range(rounds):
            found = measure(layout, number)
            click.echo(", ".join(f"{what} {value:.2f} s" for what, value in found.items()))


if __name__ == "__main__":
    main()
