"""The change stream for programs of people: events one by one, on and on, none missing.

    with StreamClient.of_cluster("./.cluster") as stream:
        for event in stream.follow(consumer="mailer", name="*.log", kind="insert"):
            print(event.keys.name)
            stream.commit("mailer", event.cursor)

`follow` reconnects by itself and goes on behind what it has given; each event is proved to
come right behind the one before (`gfs.stream_proof`). Parameters are those of ``GET
/stream`` (docs/stream.md). Nothing here needs trio.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import httpx
import msgspec
from msgspec import Struct

from gfs import changes, errors
from gfs.changes import Line
from gfs.cluster.layout import Layout
from gfs.cluster.report import view_client
from gfs.config import ClientConfig, load_section
from gfs.errors import GfsError, RemoteProtocolError, TryAgain, Unreachable, UsageError
from gfs.stream_proof import Gap, HistoryLost, LineCutter, Proof

__all__ = ["Block", "Gap", "Head", "HistoryLost", "StreamClient"]

SILENCE_S = 10.0  # heartbeats come each second
ANSWER_S = 30.0
PAUSES_S = (0.1, 0.3, 1.0, 3.0)  # between tries to reconnect; the last one again and again


class Head(Struct):
    """Of a line as much as is needed to know where it stands."""

    kind: str
    table: str = ""
    cursor: str = ""
    previous: str = ""
    more: bool = False
    scanned_to: str = ""
    committed: str = ""
    reason: str = ""


Block = list[tuple[bytes, Head]]  # lines that came together, each raw as well
_HEAD = msgspec.json.Decoder(Head)
_LINE = msgspec.json.Decoder(Line)


class StreamClient:
    """One reader. Methods raise GfsError: refused, or nobody there."""

    def __init__(self, connect: Callable[[float], httpx.Client]) -> None:
        """`connect` makes an HTTP client of the stream, with a timeout in s, of whoever serves."""
        self._connect = connect
        self._calls: httpx.Client | None = None

    @classmethod
    def of_cluster(cls, name: str) -> Self:
        """The stream of a cluster: the directory of `gfs cluster up`.

        Raises: UsageError: there is none, or its stream is not known.
        """
        layout = Layout(name)
        layout.load()
        config, _ = load_section("client", file=layout.toml)
        assert isinstance(config, ClientConfig)
        return cls.of_config(config)

    @classmethod
    def of_config(cls, config: ClientConfig) -> Self:
        """The stream that section [client] names."""
        return cls(lambda timeout_s: view_client(config, "stream", timeout_s))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection of calls; readings end with their generators."""
        if self._calls is not None:
            self._calls.close()
            self._calls = None

    # Reading.

    def follow(self, **asked: Any) -> Iterator[Line]:
        """Events of `inodes` and `dirents`, as `changes.Line`, until there are no more.

        Args:
          asked: parameters of ``GET /stream``; `from_` stands for ``from``.

        Raises:
          HistoryLost: begin anew from `snapshot`.
          InvalidArgument and the like: refused; Unreachable: at the first connection alone.
        """
        for block in self.blocks(**asked):
            for raw, head in block:
                if head.table:
                    yield _LINE.decode(raw)

    def blocks(self, **asked: Any) -> Iterator[Block]:
        """Every line as it came, of any table, heartbeats too, as many as came together.

        Raises: as `follow`; Gap: the server leaves something out, again and again.
        """
        query = {name.rstrip("_"): value for name, value in asked.items() if value is not None}
        ends, left = not query.get("follow", True), int(query.get("limit", 0)) or -1
        query["follow"] = int(not ends)
        proof: Proof | None = None
        gap = ""
        for pauses in self._tries():
            try:
                for block in self._response(query):
                    proof = proof or Proof(_begin(block[0][1]))
                    good, error = _proved(block, proof)
                    left -= sum(bool(head.table) for _, head in good) if left > 0 else 0
                    pauses.clear()
                    yield good
                    if error is not None:
                        raise error
            except (Unreachable, TryAgain):
                if proof is None:
                    raise
            except Gap as found:
                if gap == str(found):  # twice the same is no accident of a connection
                    raise
                gap = str(found)
            if proof is None:
                continue
            if left == 0 or (ends and str(proof.scanned) == proof.committed):
                return
            proof = Proof(proof.cursor)
            query |= {"from": str(proof.cursor), "limit": max(0, left)}

    def _tries(self) -> Iterator[list[float]]:
        """Each time a list that whoever has got something clears: then the next pause is short."""
        pauses: list[float] = []
        while True:
            yield pauses
            pauses.append(PAUSES_S[min(len(pauses), len(PAUSES_S) - 1)])
            time.sleep(pauses[-1])

    def _response(self, query: dict[str, Any]) -> Iterator[Block]:
        cutter = LineCutter()
        with (
            _translated(),
            self._connect(SILENCE_S) as client,
            client.stream("GET", "/stream", params=query) as answer,
        ):
            if answer.status_code != 200:
                answer.read()
                raise refusal(answer)
            for piece in answer.iter_raw():
                if lines := cutter.whole(piece).splitlines():
                    yield [(raw, _HEAD.decode(raw)) for raw in lines]

    def snapshot(self) -> Iterator[Line]:
        """All items of the newest checkpoint as events; the first line's cursor is its place.

        Raises: RemoteProtocolError: it was cut short.
        """
        cutter, count, last = LineCutter(), 0, None
        with (
            _translated(),
            self._connect(ANSWER_S) as client,
            client.stream("GET", "/snapshot") as answer,
        ):
            if answer.status_code != 200:
                answer.read()
                raise refusal(answer)
            for piece in answer.iter_raw():
                for last in map(_LINE.decode, cutter.whole(piece).splitlines()):
                    count += bool(last.table)
                    yield last
        if last is None or last.kind != changes.END or last.items != count:
            raise RemoteProtocolError("the snapshot was cut short")

    # Consumers.

    def commit(self, consumer: str, cursor: str) -> dict[str, Any]:
        """Say that `consumer` has done with everything up to `cursor`; its row of `consumers`."""
        return self._ask("POST", f"/consumers/{consumer}", json={"cursor": cursor})

    def consumers(self) -> list[dict[str, Any]]:
        """All named consumers with cursor and lag."""
        return list(self._ask("GET", "/consumers")["consumers"])

    def consumer(self, name: str) -> dict[str, Any]:
        """One of them; raises NotFound."""
        return self._ask("GET", f"/consumers/{name}")

    def forget(self, name: str) -> None:
        """Remove a consumer; raises NotFound."""
        self._ask("DELETE", f"/consumers/{name}")

    def _ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        with _translated():
            if self._calls is None:
                self._calls = self._connect(ANSWER_S)
            try:
                answer = self._calls.request(method, path, **more)
            except httpx.HTTPError:
                self.close()  # the next call may find another one serving
                raise
        if answer.status_code != 200:
            raise refusal(answer)
        found: dict[str, Any] = answer.json()
        return found


def _proved(block: Block, proof: Proof) -> tuple[Block, Gap | HistoryLost | None]:
    """What of a block may be believed, and why no more."""
    for at, (_, head) in enumerate(block):
        try:
            proof.takes(head)
        except (Gap, HistoryLost) as error:
            return block[:at], error
    return block, None


def _begin(head: Head) -> changes.Cursor:
    """Where a reading begins, as its first line says."""
    if head.kind == changes.HEARTBEAT:
        return changes.parse_cursor(head.scanned_to)
    if head.table:
        return changes.parse_cursor(head.previous)
    return changes.START


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise Unreachable(f"the change stream does not answer: {reason}") from error
    except msgspec.MsgspecError as error:
        raise RemoteProtocolError(f"change stream: {error}") from error


def refusal(answer: httpx.Response) -> GfsError | UsageError:
    """The error that an answer, which was read, tells of."""
    try:
        told = answer.json()
        code, text = str(told["error"]), str(told["message"])
    except (ValueError, KeyError, TypeError):
        return RemoteProtocolError(f"the change stream answers HTTP {answer.status_code}")
    if code == "usage":
        return UsageError(text)
    return errors.from_wire(code, text)
