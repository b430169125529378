"""The client that people program against the stream with, over the real process."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import httpx
import pytest

from bench.events import CLUSTER, Stage, Workload, apply_to_state
from gfs import changes
from gfs.bearer import authorization
from gfs.disk import PosixDisk
from gfs.errors import InvalidArgument, NotFound, Refused, Unreachable
from gfs.records import Record
from gfs.stream_client import Gap, HistoryLost, StreamClient
from gfs.stream_proof import LINE_BYTES_MAX, LineCutter, Proof
from master.checkpoint import make_checkpoint


class Served:
    """A log of a workload, the stream's process over it, and a client."""

    def __init__(self, stage: Stage, records: list[Record]) -> None:
        self.stage = stage
        self.records = records
        stage.append(records)
        apply_to_state(stage.state_path, records)
        stage.start_stream()
        self.client = StreamClient(self.connect)

    def connect(self, timeout_s: float) -> httpx.Client:
        return httpx.Client(
            base_url=f"http://{self.stage.stream_url}",
            headers=authorization(self.stage.key),
            timeout=timeout_s,
            verify=False,
        )

    def expected(self) -> list[str]:
        return [event.cursor for one in self.records for event in changes.events_of(one)]


@pytest.fixture(scope="module")
def workload() -> Workload:
    return Workload()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, workload: Workload) -> Iterator[Served]:
    stage = Stage(tmp_path_factory.mktemp("stream"))
    found = None
    try:
        found = Served(stage, [workload.first, *(workload.step() for _ in range(300))])
        yield found
    finally:
        if found is not None:
            found.client.close()
        stage.close()


def test_every_event_comes_once_and_a_limit_ends(served: Served) -> None:
    got = [event.cursor for event in served.client.follow(follow=False)]
    assert got == served.expected()
    some = list(served.client.follow(from_=got[9], limit=5))
    assert [event.cursor for event in some] == got[10:15]
    assert all(event.keys is not None and event.actor is not None for event in some)


def test_a_killed_stream_is_found_again_and_nothing_is_missing_or_double(
    served: Served, workload: Workload
) -> None:
    got: list[str] = []
    killed = 0
    for event in served.client.follow(kind="insert,modify,remove"):
        got.append(event.cursor)
        if len(got) in (1, 400):  # in the middle of what is there
            served.stage.stop("stream", signal.SIGKILL)
            served.stage.start_stream()
            killed += 1
        if len(got) == len(served.expected()):
            break
    assert killed == 2
    assert got == served.expected()
    following = served.client.follow(from_=got[-1])
    later = [workload.step() for _ in range(3)]
    served.stage.append(later)
    served.records += later
    rest = served.expected()[len(got) :]
    assert [event.cursor for event in itertools.islice(following, len(rest))] == rest
    following.close()  # type: ignore[attr-defined]


def test_a_consumer_of_the_client_goes_on_where_it_committed(served: Served) -> None:
    client = served.client
    with pytest.raises(NotFound):
        client.consumer("mailer")
    for number, event in enumerate(client.follow(consumer="mailer", follow=False), 1):
        if number == 50:
            assert client.commit("mailer", event.cursor)["lag_positions"] > 0
            break
    rest = [event.cursor for event in client.follow(consumer="mailer", follow=False)]
    assert rest == served.expected()[50:]
    assert [one["consumer"] for one in client.consumers()] == ["mailer"]
    client.forget("mailer")
    assert client.consumers() == []


def test_refusals_are_errors_of_ours_and_no_answer_is_one_too(served: Served) -> None:
    with pytest.raises(InvalidArgument, match="kind"):
        next(served.client.follow(kind="drop"))
    with pytest.raises(HistoryLost):
        next(served.client.follow(from_="7-1"))
    with pytest.raises(Refused):
        served.client.commit("x", "3-999999")
    nobody = StreamClient(lambda timeout: httpx.Client(base_url="http://127.0.0.1:1", verify=False))
    with pytest.raises(Unreachable):
        next(nobody.follow())
    with pytest.raises(Unreachable):
        nobody.consumers()


def test_a_snapshot_and_what_came_after_it(served: Served) -> None:
    with closing(apsw.Connection(str(served.stage.state_path))) as connection:
        made = make_checkpoint(connection, served.stage.directory / "checkpoints", PosixDisk())
    lines = list(served.client.snapshot())
    assert lines[0].cursor == f"{made.epoch}-{made.position}"
    assert lines[-1].items == len(lines) - 2 > 0
    rest = [event.cursor for event in served.client.follow(from_=lines[0].cursor, follow=False)]
    place = changes.parse_cursor(lines[0].cursor).place
    assert rest == [one for one in served.expected() if changes.parse_cursor(one).place > place]


def lossy(body: bytes) -> StreamClient:
    """A server that says this, whatever is asked."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=httpx.ByteStream(body)))
    return StreamClient(lambda _: httpx.Client(base_url="http://x", transport=transport))


def test_a_server_that_leaves_something_out_again_and_again_is_found_out() -> None:
    body = (
        b'{"kind":"heartbeat","scanned_to":"1-1","committed":"1-9"}\n'
        b'{"kind":"insert","table":"inodes","cursor":"1-3.0","previous":"1-2.0"}\n'
    )
    with pytest.raises(Gap):
        list(lossy(body).follow())


def test_where_to_go_on_is_behind_the_last_event_or_what_held_none_since() -> None:
    proof = Proof(changes.Cursor(1, 4))
    event = changes.Line("insert", table="inodes", cursor="1-6.1", previous="1-4")
    assert proof.takes(event)
    assert str(proof.cursor) == "1-6.1"
    assert not proof.takes(changes.Line("heartbeat", scanned_to="1-5", committed="1-9"))
    assert str(proof.cursor) == "1-6.1"
    proof.takes(changes.Line("heartbeat", scanned_to="1-9", committed="1-9"))
    assert str(proof.cursor) == "1-9"


def test_pieces_are_cut_at_ends_of_lines_wherever_they_break() -> None:
    text = b'{"a":1}\n{"b":"\xc3\xa9"}\n' * 3
    for size in range(1, len(text)):
        cutter = LineCutter()
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        got = [cutter.whole(piece) for piece in pieces]
        assert b"".join(got) == text
        assert all(not piece or piece.endswith(b"\n") for piece in got)
    endless = LineCutter()
    with pytest.raises(Exception, match="without end"):
        for _ in range(LINE_BYTES_MAX // 1_000_000 + 2):
            endless.whole(b"x" * 1_000_000)


def test_stage_directory_keeps_consumers_beside_the_log(served: Served) -> None:
    served.client.commit("kept", "0-0")
    assert (Path(served.stage.directory) / "consumers.db").exists()
    served.client.forget("kept")


def test_a_stream_whose_parent_has_died_before_it_served_just_ends(served: Served) -> None:
    with subprocess.Popen(["true"]) as parent:
        parent.wait()
    stage = served.stage
    command = [
        *(sys.executable, "-m", "master.stream", "--cluster-id", CLUSTER),
        *("--log", str(stage.log.directory), "--committed", str(stage.log.committed_path)),
        *("--state", str(stage.state_path), "--checkpoints", str(stage.directory / "none")),
        *("--parent", str(parent.pid)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
