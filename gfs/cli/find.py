"""`gfs find`: the words of find(1), answered by the search view instead of a walk.

Paths are shown as find shows them: beginning with the start point as it was typed. The
expression is parsed here; the view evaluates what is about files, what acts on them is
done here. Commands and -delete wait until the view has all that was done before, and
begin when the whole answer is there.
"""

from __future__ import annotations

import datetime as dt
import functools
import grp
import json
import os
import pwd
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import click
import httpx
import msgspec
import trio

from gfs import findexpr, findprogram, mounts
from gfs.changes import bytes_of, text_of
from gfs.cli.findacts import Actions, led_to
from gfs.cli.finding import Place, connected, reach
from gfs.cli.output import complain, out, out_name
from gfs.cli.queries import NoSuchFile, answer, ask_view, asked_path, barrier, print_standing
from gfs.errors import UsageError
from gfs.findformat import Format, Found, Listing, Names, Row, Shown
from gfs.findprogram import Ended, Program, Pruned
from gfs.findtests import Host
from gfs.findtree import Action, And, Expression, Nameless, NewerThan, Not, OneOf, Or, SameFile

# No option of click's own: it would see an -h in -maxdepth.
_WORDS = {
    "ignore_unknown_options": True,
    "allow_interspersed_args": False,
    "help_option_names": [],
}
_OWN = ("--wait", "--json")
_RUNS = ("exec", "execdir", "ok")
_ROW = msgspec.json.Decoder(Row)
Remove = Callable[[bytes, int], None]


@click.command(context_settings=_WORDS)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def find(context: click.Context, words: tuple[str, ...]) -> int:
    """find(1)'s own words: gfs find / -name '*.log' -size +1M -print0

    Also, anywhere: --wait (nothing done before is missing; -exec and -delete always
    wait), --json (an object a line), --cluster DIR-or-URL.
    """
    if words in (("--help",), ("-h",), ("-help",)):
        out(context.get_help())
        return 0
    rest, own, cluster = _split(list(words), context.obj)
    host = Host(time.time_ns(), _uid, _gid, dt.datetime.astimezone)
    expression = findexpr.parse([text_of(os.fsencode(word)) for word in rest], host)
    place = reach(cluster, [bytes_of(path) for path in expression.paths])
    search = _Search(place, expression, own)
    if not _names_in(search.program.steps) & {"delete"}:
        return search.run(_nothing_removed)

    async def work() -> int:
        async with connected(place) as files:

            def remove(path: bytes, ino: int) -> None:
                trio.from_thread.run(files.unlink, path, ino)

            return await trio.to_thread.run_sync(search.run, remove)

    return trio.run(work)


class _Search:
    """One command line, asked and acted on start by start."""

    def __init__(self, place: Place, expression: Expression, own: set[str]) -> None:
        self.place = place
        self.expression = expression
        self.program = findprogram.compiled(expression)
        self.as_json = "--json" in own
        actions = _names_in(self.program.steps)
        if self.as_json and actions - {"print", "print0"}:
            raise UsageError("find: --json prints what is found; no action goes with it")
        self.runs = bool(actions & {*_RUNS, "delete"})
        self.wait = "--wait" in own or self.runs
        self.starts = [(path, self._shown(path, actions)) for path in expression.paths]
        self.names = Names(_user, _group)
        seen = _seen_in(place)
        texts = _formats_in(self.program.steps)
        formats = {text: Format(text, self.names, seen) for text in texts}
        self.listing = Listing(self.names, time.time())
        self.formats = formats

    def _shown(self, path: str, actions: set[str]) -> str:
        """How a start point is shown: as it was typed; for commands, so that they find it."""
        place = self.place
        outside = path == "." and place.here == b"/"  # "." that is no directory of this host
        shown = "/" if outside and not place.inside else path
        if not actions & set(_RUNS):
            return shown
        raw = bytes_of(path)
        if place.path(raw) != raw and (raw.startswith(b"/") or place.inside):
            return shown  # below a mountpoint, or from where one stands in a mount
        there = place.on_host(bytes_of(asked_path(place, raw)))
        if there is None:
            raise UsageError("find: commands need a mount of the cluster on this host")
        return text_of(there).rstrip("/")

    def run(self, remove: Remove) -> int:
        """Ask and act; the exit code."""

        def removed(found: Found) -> None:
            remove(bytes_of(asked_path(self.place, bytes_of(found.row.path))), found.row.ino)

        actions = Actions(self.listing, self.formats, removed)
        asked = {"wait": barrier(self.place)} if self.wait else {}
        predicates = _Translation(self.place)
        standing: dict[str, Any] | None = None
        try:
            for path, shown in self.starts:
                body = self._request(path, shown, predicates)
                try:
                    with answer(
                        self.place, "search", "/find", asked, wait=False, body=body
                    ) as response:
                        standing = _standing(response)
                        self._take(response, shown, actions)
                except NoSuchFile as error:
                    actions.failed = True
                    complain(f"find: {error}")
        except Ended:
            pass
        actions.finish()
        if standing is not None and not self.as_json:
            print_standing(standing)
        return int(actions.failed)

    def _request(self, path: str, shown: str, predicates: _Translation) -> bytes:
        program, expression = self.program, self.expression
        order = ("up" if expression.depth_first else "down") if program.in_order else ""
        return msgspec.json.encode(
            {
                "paths": [{"path": asked_path(self.place, bytes_of(path)), "shown": shown}],
                "predicate": predicates.of(program.where),
                "prune": None if program.prune is None else predicates.of(program.prune),
                "tests": [predicates.of(test) for test in program.tests],
                "order": order,
                "mindepth": expression.mindepth,
                "maxdepth": expression.maxdepth,
                "nul": program.only_prints is not None and not self.as_json,
            }
        )

    def _take(self, response: httpx.Response, shown: str, actions: Actions) -> None:
        plain = self.program.only_prints
        if plain is not None and not self.as_json:
            end = b"\0" if plain.name == "print0" else b"\n"
            for path in _parts(response.iter_raw(), b"\0"):
                out_name(path, end)
            return
        lines = _parts(response.iter_raw(), b"\n")
        follow = _Following(self.program, shown, actions, self.as_json)
        for line in _kept(lines) if self.runs else lines:
            follow.line(line)


def _seen_in(place: Place) -> Shown:
    """What the mounts of the cluster on this host show."""

    def on_host(shown: str) -> bytes | None:
        raw = bytes_of(shown)
        typed = os.path.abspath(raw)
        if (raw.startswith(b"/") or place.inside) and place.path(typed) != typed:
            return typed
        return place.on_host(bytes_of(asked_path(place, raw)))

    @functools.cache
    def device(start: str) -> int:
        there = on_host(start)
        mount = None if there is None else mounts.mount_of(there)
        return 0 if mount is None else os.makedev(*map(int, mount.device.split(":")))

    def leads_to(path: str) -> str:
        there = on_host(path)
        return "?" if there is None else led_to(there)

    return Shown(device, leads_to if place.mountpoints else None)


class _Following:
    """The steps of a program for the rows below one start."""

    def __init__(self, program: Program, shown: str, actions: Actions, as_json: bool) -> None:
        self.program, self.shown, self.actions, self.as_json = program, shown, actions, as_json
        self.pruned = Pruned()

    def line(self, line: bytes) -> None:
        """Raises: Ended."""
        found = Found(_ROW.decode(line), self.shown)
        if self.pruned.hides(0, found.below):
            return

        def act(action: Action) -> bool:
            if self.as_json:
                out(line)
                return True
            return self.actions.act(action, found)

        def prune() -> None:
            self.pruned.add(0, found.below)

        findprogram.follow(self.program.steps, found.row.tests, act, prune)


class _Translation:
    """Paths in predicates mean what all paths mean; who has no name is found out."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def of(self, predicate: Any) -> Any:
        match predicate:
            case And(parts) | Or(parts):
                return type(predicate)([self.of(part) for part in parts])
            case Not(part):
                return Not(self.of(part))
            case NewerThan(path=path) | SameFile(path=path):
                real = asked_path(self.place, bytes_of(path))
                return msgspec.structs.replace(predicate, path=real)
            case Nameless(attribute):
                return OneOf(attribute, self._nameless(attribute))
        return predicate

    @functools.cache  # noqa: B019 (lives as long as the command)
    def _nameless(self, attribute: str) -> list[int]:
        """Owners or groups of any file that this host has no name for."""
        table = "owners" if attribute == "uid" else "inodes"
        body = json.dumps({"sql": f"SELECT DISTINCT {attribute} FROM {table}"}).encode()
        rows = ask_view(self.place, "search", "/sql", {}, wait=False, body=body)["rows"]
        name = _user if attribute == "uid" else _group
        return [number for (number,) in rows if name(number) is None]


def _split(words: list[str], cluster: str | None) -> tuple[list[str], set[str], str | None]:
    """find's words, our own flags among them, and the cluster."""
    rest: list[str] = []
    own: set[str] = set()
    left = iter(words)
    for word in left:
        if word in _OWN:
            own.add(word)
        elif word == "--cluster":
            cluster = next(left, None)
            if cluster is None:
                raise UsageError("--cluster needs a directory or URL")
        elif word.startswith("--cluster="):
            cluster = word.partition("=")[2]
        else:
            rest.append(word)
    return rest, own, cluster


def _actions_in(steps: Any) -> Iterator[Action]:
    match steps:
        case Action():
            yield steps
        case Not(part):
            yield from _actions_in(part)
    for part in getattr(steps, "parts", ()):
        yield from _actions_in(part)


def _names_in(steps: Any) -> set[str]:
    return {action.name for action in _actions_in(steps)}


def _formats_in(steps: Any) -> set[str]:
    return {action.words[0] for action in _actions_in(steps) if action.name == "printf"}


def _parts(blocks: Iterator[bytes], end: bytes) -> Iterator[bytes]:
    """What stands before each `end`, byte for byte."""
    pending = b""
    for block in blocks:
        whole, found, pending = (pending + block).rpartition(end)
        if found:
            yield from whole.split(end)


def _kept(lines: Iterator[bytes]) -> Iterator[bytes]:
    """All lines, once the last has come: acting takes longer than a view's answer may."""
    with tempfile.TemporaryFile() as kept:
        for line in lines:
            kept.write(line + b"\n")
        kept.seek(0)
        for line in kept:
            yield line.removesuffix(b"\n")


def _standing(response: httpx.Response) -> dict[str, Any]:
    epoch, _, position = response.headers.get("X-GFS-Cursor", "?-?").partition("-")
    return {
        "epoch": epoch,
        "position": position.partition(".")[0],
        "lag_ms": response.headers.get("X-GFS-Lag-Ms"),
        "rebuilding": response.headers.get("X-GFS-Rebuilding") == "1",
    }


def _nothing_removed(path: bytes, ino: int) -> None:
    raise AssertionError


def _uid(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _gid(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


@functools.cache
def _user(number: int) -> str | None:
    try:
        return pwd.getpwuid(number).pw_name
    except (KeyError, OverflowError):
        return None


@functools.cache
def _group(number: int) -> str | None:
    try:
        return grp.getgrgid(number).gr_name
    except (KeyError, OverflowError):
        return None
