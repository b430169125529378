"""`gfs stream` against a cluster of real processes: a line an event, consumers, quiet ends."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.clusters import ROOT, LocalCluster

LIMIT_S = 30


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    cluster = LocalCluster(tmp_path_factory.mktemp("stream") / ".cluster")
    try:
        cluster.up("--chunkservers", "1", "--mounts", "0", "--no-projections")
        yield cluster
    finally:
        cluster.end()


def started(cluster: LocalCluster, *words: str) -> subprocess.Popen[bytes]:
    """A command that runs on."""
    command = [*cluster.command(), "stream", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cluster.variables(), cwd="/"
    )


def line_of(process: subprocess.Popen[bytes]) -> dict[str, object]:
    """The next line, as it comes."""
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], LIMIT_S)[0]
    found: dict[str, object] = json.loads(process.stdout.readline())
    return found


def lines(cluster: LocalCluster, *words: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in cluster.out("stream", *words).splitlines()]


def test_every_line_is_an_object_and_each_names_the_one_before(cluster: LocalCluster) -> None:
    cluster.gfs("mkdir", "-p", "/made/inside")
    found = lines(cluster, "--no-follow")
    assert any(line["operation"] == "make" for line in found)
    previous = "0-0"
    for line in found:
        assert line["previous"] == previous
        previous = str(line["cursor"])


def test_filters_combine_on_the_command_line(cluster: LocalCluster) -> None:
    cluster.gfs("mkdir", "-p", "/filtered/logs", "/filtered/data.d", "/other.d")
    found = lines(
        cluster, "--no-follow", "--prefix", "/filtered", "--name", "*.d", "--kind", "insert",
        "--operation", "make", "--owner", str(os.getuid()),
    )  # fmt: skip
    assert [(line["table"], line["kind"]) for line in found] == [
        ("inodes", "insert"),
        ("dirents", "insert"),
    ]
    assert found[1]["keys"]["name"] == "data.d"  # type: ignore[index]
    for wrong in (
        ["--owner", "nobody-of-this-name"],
        ["--operation", "drop"],
        ["--consumer", "a b"],
        ["--name", "x" * 2000],
        ["--from", "nonsense"],
    ):
        refused = cluster.gfs("stream", "--no-follow", *wrong, code=2)
        assert refused.stderr.startswith(b"gfs: ")
        assert len(refused.stderr.splitlines()) == 1


def test_a_consumer_prints_each_event_once_and_is_listed(cluster: LocalCluster) -> None:
    cluster.gfs("mkdir", "/one")
    first = lines(cluster, "--no-follow", "--consumer", "printer")
    assert any(b"one" in json.dumps(line).encode() for line in first)
    assert lines(cluster, "--no-follow", "--consumer", "printer") == []
    cluster.gfs("mkdir", "/two")
    listed = cluster.json("stream", "consumers", "--json", "printer")
    assert listed["lag_positions"] > 0
    assert b"behind" in cluster.out("stream", "consumers")
    status = cluster.json("status", "--json")
    assert status["ok"]
    assert status["stream"]["consumer"]["printer"]["lag_positions"] >= listed["lag_positions"]
    assert b"printer" in cluster.out("status")
    second = lines(cluster, "--no-follow", "--consumer", "printer", "--kind", "insert")
    assert [line["keys"].get("name") for line in second if line["table"] == "dirents"] == [  # type: ignore[attr-defined]
        "two"
    ]
    cluster.gfs("stream", "forget", "printer")
    assert cluster.out("stream", "consumers") == b""
    cluster.gfs("stream", "forget", "printer", code=1)
    cluster.gfs("stream", "consumers", "printer", code=1)


def test_a_follower_goes_on_when_the_streams_process_was_killed(cluster: LocalCluster) -> None:
    process = started(cluster, "--from", "now", "--kind", "insert", "--heartbeats")
    try:
        assert line_of(process)["kind"] == "heartbeat"
        os.kill(stream_pid(cluster), signal.SIGKILL)
        cluster.gfs("mkdir", "/after-the-kill")
        found = ""
        while "after-the-kill" not in found:
            found = json.dumps(line_of(process))
    finally:
        process.kill()
        process.communicate()
    # The master starts it again, at the same place.
    deadline = time.monotonic() + LIMIT_S
    while cluster.json("status", "--json")["stream"].get("error"):
        assert time.monotonic() < deadline


def stream_pid(cluster: LocalCluster) -> int:
    """The stream's process is a child of the master's."""
    master = cluster.pids()["master"]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(parent) == master and b"master.stream" in words:
            return int(entry.name)
    raise AssertionError("the master has no stream")


def test_a_reader_of_our_output_that_goes_ends_us_quietly_also_while_nothing_happens(
    cluster: LocalCluster,
) -> None:
    process = started(cluster, "--from", "start")
    line_of(process)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(LIMIT_S) == 141
    process.stderr.close()


def test_an_interrupted_consumer_ends_quietly_and_has_committed(cluster: LocalCluster) -> None:
    process = started(cluster, "--from", "start", "--consumer", "stopped", "--heartbeats")
    seen = line_of(process)
    while seen["kind"] != "heartbeat" or seen["scanned_to"] != seen["committed"]:
        seen = line_of(process)
    line_of(process)  # so the one before is behind it: an interrupt may fall between line and note
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, told) == (130, b"")
    assert cluster.json("stream", "consumers", "--json", "stopped")["cursor"] == seen["committed"]
    cluster.gfs("stream", "forget", "stopped")


def test_the_example_of_the_documentation_runs(cluster: LocalCluster) -> None:
    text = (ROOT / "docs" / "stream.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    cluster.gfs("put", "-", "/example.log", given=b"x")
    done = subprocess.run(
        [sys.executable, "-P", "-c", example],
        cwd=cluster.directory.parent,
        env=cluster.variables(),
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    printed = done.stdout.decode().splitlines()
    assert f"example.log by {os.getuid()}" in printed
    assert re.fullmatch(r"\d+ records to go", printed[-1])
    cluster.gfs("stream", "forget", "mailer")
