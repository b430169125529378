"""`gfs trace` and `gfs mount-stats` on a real mount."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gfs.cluster.processes import Registry
from tests.fuse.conftest import Cluster

pytestmark = [pytest.mark.timeout(60), pytest.mark.mount]
GFS = [sys.executable, "-m", "gfs.cli.main"]


def gfs(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*GFS, *words], capture_output=True, text=True, timeout=30, check=False)


@contextmanager
def watching(*words: str) -> Iterator[Iterator[dict[str, Any]]]:
    """What a command that goes on prints, an object a line."""
    command = [*GFS, *words, "--json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            if words[0] == "trace":
                assert process.stderr.readline().startswith(b"watching")
            yield (json.loads(line) for line in process.stdout)
        finally:
            process.terminate()


def traced_until(lines: Iterator[dict[str, Any]], place: Path, marker: str) -> list[dict[str, Any]]:
    """Lines until `marker` is seen to be looked up, which is done until then."""
    found: list[dict[str, Any]] = []
    (place / marker).exists()
    for line in lines:
        if line["operation"] == "lookup" and line["path"].endswith(marker):
            return found
        found.append(line)
    raise AssertionError("the trace has ended")


def test_every_request_is_told_with_path_bytes_error_and_caller(
    cluster: Cluster, here: Path
) -> None:
    old = here / "old"
    old.mkdir()
    (old / "file").write_bytes(b"x" * 10_000)
    with watching("trace", str(here)) as lines:
        os.rename(old / "file", old / "new")
        with open(old / "new", "rb") as file:
            assert len(file.read()) == 10_000
        with pytest.raises(FileExistsError):
            os.mkdir(old)
        os.setxattr(old / "new", "user.k", b"v")
        (old / b"\xff".decode("utf-8", "surrogateescape")).touch()
        with (
            open(old / "pending", "wb", buffering=0) as unsent,
            open(old / "pending", "rb") as file,
        ):
            unsent.write(b"z" * 7000)
            assert len(file.read()) == 7000
        told = traced_until(lines, here, "end")
    top = "/" + here.name
    by_name = {line["operation"]: line for line in told}
    assert by_name["rename"]["path"] == f"{top}/old/file"
    assert by_name["rename"]["to"] == f"{top}/old/new"
    reads = [line for line in told if line["operation"] == "read"]
    sizes = Counter[str]()
    for line in reads:
        sizes[line["path"]] += line["bytes"]
    assert sizes == {f"{top}/old/new": 10_000, f"{top}/old/pending": 7000}
    assert {(line["pid"], line["uid"]) for line in reads} == {(os.getpid(), os.getuid())}
    assert by_name["setxattr"]["to"] == "user.k"
    assert by_name["create"]["path"].startswith(f"{top}/old/")
    assert all(line["us"] >= 0 for line in told)
    assert not [line for line in told if line["errno"] not in ("", "ENOENT", "ENODATA")]


def test_counts_are_of_their_interval(cluster: Cluster, here: Path) -> None:
    with watching("mount-stats", str(here), "0.2") as intervals:
        first = next(intervals)
        assert first["interval_s"] == pytest.approx(0.2, abs=0.5)
        for number in range(50):
            (here / f"f{number}").write_bytes(b"y" * 1000)
        made = written = 0
        for told in intervals:
            counts = told["operations"]
            made += counts.get("create", {}).get("calls", 0)
            written += counts.get("write", {}).get("bytes", 0)
            if made >= 50 and written >= 50_000:
                break
        assert (made, written) == (50, 50_000)
        assert told["mount"]["lease_left_s"] > 0


def test_places_that_cannot_be_watched_are_named(tmp_path: Path) -> None:
    done = gfs("trace", str(tmp_path))
    assert done.returncode == 2
    assert "not in a mount" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_table_sums_up_what_it_shows(cluster: Cluster, here: Path) -> None:
    stop = threading.Event()

    def work() -> None:
        for number in itertools.takewhile(lambda _: not stop.is_set(), itertools.count()):
            (here / f"f{number % 20}").write_bytes(b"z" * 500)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work)
        try:
            done = gfs("mount-stats", str(here), "0.5", "2")
        finally:
            stop.set()
    assert done.returncode == 0, done.stderr
    _, titles, *rows = done.stdout.splitlines()
    rows = rows[: next(at for at, row in enumerate(rows) if row.split()[0] == "all") + 1]
    calls = [float(row.split()[1]) for row in rows]
    assert titles.split()[:2] == ["operation", "calls/s"]
    assert calls[-1] == pytest.approx(sum(calls[:-1]), rel=0.05)  # each is rounded
    assert {row.split()[0] for row in rows} > {"write", "flush"}


def test_watching_ends_as_other_programs_do(cluster: Cluster, here: Path) -> None:
    """On Ctrl-C without a word, when nobody reads, and with the mount."""
    other = cluster.layout.mountpoint(2)
    for words in (["mount-stats", str(here), "0.1"], ["trace", str(here)]):
        with _started(words) as process:
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
            assert process.stderr is not None
            assert b"Traceback" not in process.stderr.read()
        with _started(words) as process:
            assert process.stdout is not None
            process.stdout.close()
            while process.poll() is None:
                (here / "marker").exists()
                os.listdir(here)
            assert process.wait(20) == 141
    with _started(["mount-stats", str(other), "0.1"]) as process:
        subprocess.run(["fusermount3", "-u", other], check=True, timeout=20)
        assert process.wait(20) == 1
        assert process.stderr is not None
        (told,) = process.stderr.read().splitlines()
        assert b"has ended" in told
    while cluster.layout.ready("mount2").exists() and "mount2" in Registry(cluster.layout).alive():
        time.sleep(0.01)
    cluster.up()


@contextmanager
def _started(words: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A command that watches already."""
    pipe = subprocess.PIPE
    with subprocess.Popen([*GFS, *words], stdout=pipe, stderr=pipe) as process:
        try:
            first = process.stderr if words[0] == "trace" else process.stdout
            assert first is not None
            assert first.readline()
            yield process
        finally:
            process.kill()


def requests(place: Path) -> int:
    """To the master so far, once nothing more is on its way there (closes are told in batches)."""
    with watching("mount-stats", str(place), "0.6") as intervals:
        counts = (int(told["mount"]["master_requests_total"]) for told in intervals)
        before = next(counts)
        for now in counts:
            if now == before:
                return now
            before = now
    raise AssertionError("the counts have ended")


def test_a_tree_that_is_known_is_looked_at_without_a_request_to_the_master(here: Path) -> None:
    for number in range(4):
        (here / f"d{number}" / "e").mkdir(parents=True)
        for name in range(10):
            (here / f"d{number}" / "e" / f"f{name}").write_bytes(b"x")

    def look(*words: str) -> bytes:
        return subprocess.run(words, cwd=here, capture_output=True, check=False).stdout

    known = [look("ls", "-lR"), look("stat", "absent")]
    before = requests(here)
    assert [look("ls", "-lR"), look("stat", "absent")] == known
    assert requests(here) == before
    look("find", ".", "-newer", "d0")
    look("du", "-a")
    assert requests(here) <= before + 2  # both ask for the kind of the filesystem, so its space


def test_what_was_read_is_read_again_without_a_request_to_the_master(here: Path) -> None:
    for number in range(200):
        (here / f"f{number}").write_bytes(b"%d" % number)

    def grep() -> list[bytes]:
        found = subprocess.run(
            ["grep", "-r", "9", str(here)], capture_output=True, check=True, timeout=30
        )
        return sorted(found.stdout.splitlines())

    known = grep()
    grep()  # what it waited to write when it was read first is written now
    before = requests(here)
    assert [grep() for _ in range(3)] == [known] * 3
    assert requests(here) <= before + 3  # grep asks for the kind of the filesystem, so its space


def test_git_status_asks_the_master_for_its_lock_alone(here: Path) -> None:
    """It makes a file, closes and removes it."""
    git = ["git", "-C", str(here), "-c", "user.name=n", "-c", "user.email=n@example.org"]

    def run(*words: str) -> bytes:
        return subprocess.run([*git, *words], capture_output=True, check=True).stdout

    run("init", "-q")
    for number in range(150):
        (here / f"f{number}").write_bytes(b"%d" % number)
    run("add", ".")
    run("commit", "-q", "-m", "all")
    for _ in range(2):
        run("status")  # the index takes up the times, and is read
    before = requests(here)
    assert b"nothing to commit" in run("status")
    asked = requests(here) - before
    assert asked == 3
