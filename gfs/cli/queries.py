"""`gfs sql`, and how questions are asked: questions that the views answer.

Every answer is as of a position of the operation log; position and lag are printed on
standard error, or are part of the object with --json. With ``--wait`` the master first
has everything logged that anybody was told was done, and the view answers from there.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import click
import httpx

from gfs.changes import bytes_of, text_of
from gfs.cli.finding import Place, cluster_option, reach
from gfs.cli.output import CommandFailed, out, remark
from gfs.cluster.asking import ask
from gfs.cluster.report import view_client
from gfs.errors import UsageError
from gfs.messages import Barrier, BarrierDone

BARRIER_S = 60.0
ANSWER_S = 120.0
_PATH = click.Path(path_type=bytes)
_C = TypeVar("_C", bound=Callable[..., Any])


class NoSuchFile(CommandFailed):
    """The view knows no file at the path that was asked about."""


def question(command: _C) -> _C:
    """Options that every question has."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="The answer as JSON."),
        click.option("--wait", is_flag=True, help="Nothing done before is missing."),
        cluster_option,
    ):
        command = option(command)
    return command


def barrier(place: Place) -> str:
    """Cursor at or below which lies everything acknowledged to anybody until now."""
    done = ask(place.config, Barrier(), BarrierDone, BARRIER_S)
    return f"{done.epoch}-{done.position}"


def asked_path(place: Place, path: bytes | None) -> str:
    """A path as the views take it: absolute, without dots; default: where one stands."""
    raw = place.here if path is None else place.path(path)
    parts: list[bytes] = []
    for part in raw.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return "/" + "/".join(map(text_of, parts))


@contextlib.contextmanager
def answer(
    place: Place,
    view: str,
    path: str,
    parameters: Mapping[str, str | int],
    *,
    wait: bool,
    body: bytes | None = None,
) -> Iterator[httpx.Response]:
    """The view's response, not read yet.

    Raises:
      UsageError: the view found a mistake in the question.
      CommandFailed: it does not answer, or could not.
    """
    asked = dict(parameters)
    if wait:
        asked["wait"] = barrier(place)
    method = "GET" if body is None else "POST"
    with view_client(place.config, view, ANSWER_S) as client:
        try:
            with client.stream(method, path, params=asked, content=body) as response:
                _check(response, view)
                yield response
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise CommandFailed(f"the {view} view does not answer: {reason}") from None


def _check(response: httpx.Response, view: str) -> None:
    if response.status_code < 400:
        return
    text = response.read().decode(errors="replace")
    try:
        message = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        message = f"HTTP {response.status_code} {text[:200]}"
    if response.status_code == 400:
        raise UsageError(message)
    if response.status_code == 404:
        raise NoSuchFile(f"{view} view: {message}")
    raise CommandFailed(f"{view} view: {message}")


def ask_view(
    place: Place,
    view: str,
    path: str,
    parameters: Mapping[str, str | int],
    *,
    wait: bool,
    body: bytes | None = None,
) -> dict[str, Any]:
    """A small answer, whole."""
    with answer(place, view, path, parameters, wait=wait, body=body) as response:
        found: dict[str, Any] = json.loads(response.read())
        return found


def print_standing(found: Mapping[str, Any]) -> None:
    """Position and lag on standard error."""
    lag = found.get("lag_ms")
    text = f"as of position {found.get('position', '?')}"
    if found.get("epoch") is not None:
        text += f" (epoch {found['epoch']})"
    text += "" if lag is None else f", lag {float(lag):.0f} ms"
    text += ", the view is being rebuilt" if found.get("rebuilding") else ""
    remark(text + (", the view is paused" if found.get("paused") else ""))


# --- commands ------------------------------------------------------------------------


@click.command()
@question
@click.argument("query")
@click.option("--view", default="analytics", help="analytics, search or one of your own.")
@click.option("--limit", type=click.IntRange(1), help="Rows at most.")
@click.pass_context
def sql(
    context: click.Context, query: str, view: str, limit: int | None, wait: bool, as_json: bool
) -> None:
    """Answer one SELECT (- reads it from standard input) over the metadata.

    The analytics view is DuckDB, the search view SQLite; tables in docs/views.md.
    """
    place = reach(context.obj)
    text = sys.stdin.read() if query == "-" else query
    body: dict[str, Any] = {"sql": text} | ({} if limit is None else {"limit": limit})
    found = ask_view(place, view, "/sql", {}, wait=wait, body=json.dumps(body).encode())
    if as_json:
        out(json.dumps(found))
        return
    print_rows(found["columns"], found["rows"])
    if found["truncated"]:
        remark(f"only the first {len(found['rows'])} rows (--limit)")
    print_standing(found)


def print_rows(columns: list[str], rows: list[list[Any]]) -> None:
    """A table on a terminal, else lines with tabs between."""
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(*columns, box=box.SIMPLE, pad_edge=False)
        for row in rows:
            table.add_row(*("" if cell is None else str(cell) for cell in row))
        Console(highlight=False, markup=False).print(table)
        return
    out("\t".join(columns))
    for row in rows:
        cells = ("" if cell is None else bytes_of(str(cell)) for cell in row)
        out(b"\t".join(cell if isinstance(cell, bytes) else cell.encode() for cell in cells))
