"""How long a snapshot of a large tree takes, and how long others wait for the master meanwhile.

    python -m bench.snapshot [--files N] [--rounds N]

Makes a state of N files of 4 KiB, a thousand a directory, packed into chunks (of which no
server has a copy: nobody reads them), starts a local cluster with two mounts on it, and takes
snapshots of all of them while two programs make files and look names up on the second mount.
Printed of each round: the longest call of each program, first without a snapshot and then with
one, and the time that the snapshot took.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import click

from bench.restart import LIMIT_S, make_files, start_program
from bench.setting import directory_option, local_cluster
from gfs.cluster.layout import Layout
from gfs.cluster.up import Wishes, up

FILE_BYTES = 4096
LEAD_S = 0.5


def _gather(layout: Layout) -> Path:
    """All directories into one, of which snapshots can be taken."""
    top = layout.mountpoint(1)
    tree = top / "tree"
    tree.mkdir()
    for directory in sorted(top.glob("directory*")):
        directory.rename(tree / directory.name)
    return tree


def _snapshot(layout: Layout, tree: Path, number: int) -> tuple[int, float]:
    """Inodes copied, and seconds."""
    command = [sys.executable, "-m", "gfs.cli.main", "--cluster", str(layout.directory)]
    words = ["snapshot", "--json", str(tree), str(tree.with_name(f"snapshot{number}"))]
    done = subprocess.run([*command, *words], stdout=subprocess.PIPE, check=True, timeout=LIMIT_S)
    told = json.loads(done.stdout)
    return int(told["inodes"]), float(told["seconds"])


def _measure(layout: Layout, number: int, tree: Path | None) -> str:
    """What two programs meet while a snapshot of `tree`, or nothing, is made."""
    other = layout.mountpoint(2)
    label = f"{'with' if tree else 'without'}{number}-"
    programs = [start_program(kind, other / f"{kind}-{label}") for kind in ("create", "stat")]
    time.sleep(LEAD_S)
    found = ["nothing copied"]
    if tree is not None:
        inodes, seconds = _snapshot(layout, tree, number)
        found = [f"{inodes} inodes copied in {seconds:.2f} s"]
    for one in programs:
        told = json.loads(one.communicate(timeout=LIMIT_S)[0].splitlines()[-1])
        if told["error"]:
            raise click.ClickException(f"{told['kind']}: {told['error']}")
        found.append(f"longest {told['kind']} {told['longest_s']:.2f} s")
    return ", ".join(found)


@click.command(help=__doc__)
@click.option("--files", default=100_000, show_default=True)
@click.option("--rounds", default=2, show_default=True)
@directory_option
def main(files: int, rounds: int, directory: Path) -> None:
    with local_cluster(directory) as layout:
        facts = layout.create()
        layout.save(facts)
        make_files(layout.data("master"), facts.id, files, file_bytes=FILE_BYTES)
        up(layout, Wishes(mounts=2, projections=False), click.echo)
        tree = _gather(layout)
        for number in range(rounds):
            click.echo(_measure(layout, number, None))
            click.echo(_measure(layout, number, tree))


if __name__ == "__main__":
    main()
