"""`gfs search|du|sql`: questions that the views answer.

Every answer is as of a position of the operation log; position and lag are printed on
standard error, or are part of the object with --json. With ``--wait`` the master first
has everything logged that anybody was told was done, and the view answers from there.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import click
import httpx

from gfs.cli.finding import Place, cluster_option
from gfs.cli.output import CommandFailed, remark
from gfs.cluster.asking import ask
from gfs.cluster.report import view_client
from gfs.errors import UsageError
from gfs.messages import Barrier, BarrierDone

BARRIER_S = 60.0
ANSWER_S = 120.0
_PATH = click.Path(path_type=bytes)
_C = TypeVar("_C", bound=Callable[..., Any])


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
    raise CommandFailed(f"{view} view: {message}")


def ask_view(
    place: Place, view: str, path: str, parameters: Mapping[str, str | int], *, wait: bool
) -> dict[str, Any]:
    """A small answer, whole."""
    with answer(place, view, path, parameters, wait=wait) as response:
        found: dict[str, Any] = json.loads(response.read())
        return found


def print_standing(found: Mapping[str, Any]) -> None:
    """Position and lag on standard error."""
    lag = found.get("lag_ms")
    text = f"as of position {found.get('position', '?')}"
    if found.get("epoch") is not None:
        text += f" (epoch {found['epoch']})"
    text += "" if lag is None else f", lag {float(lag):.0f} ms"
    remark(text + (", the view is being rebuilt" if found.get("rebuilding") else ""))
