"""`gfs projections list|status|rebuild|pause|resume|verify`: the views, told over HTTP.

Each view is asked where the settings say that it is; one process may keep several.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import httpx

from gfs.cli.finding import Place, cluster_option, reach
from gfs.cli.output import CommandFailed, flush, out, remark, size_text, time_text
from gfs.cluster.report import view_client, view_names

ANSWER_S = 60.0
POLL_S = 0.2
AWAY_S = 10.0  # a view that does not answer for so long while it is built is given up
_json = click.option("--json", "as_json", is_flag=True, help="As JSON.")


def _ask(place: Place, view: str, method: str, path: str, **query: str) -> dict[str, Any]:
    """A view's answer.

    Raises:
      UsageError: there is no such view. CommandFailed: it does not answer, or refuses.
    """
    try:
        with view_client(place.config, view, ANSWER_S) as client:
            answer = client.request(method, path, params=query)
            found = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise CommandFailed(f"the {view} view does not answer: {reason}") from None
    if answer.status_code != 200:
        raise CommandFailed(f"{view} view: {found.get('message', answer.status_code)}")
    return dict(found)


def _all(place: Place) -> list[dict[str, Any]]:
    found = []
    for view in view_names(place.config):
        try:
            found.append(_ask(place, view, "GET", "/status", rows="1"))
        except CommandFailed as error:
            found.append({"view": view, "state": "away", "problem": str(error)})
    return found


@click.command("list")
@cluster_option
@_json
@click.pass_context
def list_views(context: click.Context, as_json: bool) -> int:
    """The views of this cluster: state, position, lag, rate, rows, size, faults.

    Exit code 1 if one does not answer or differs from the master.
    """
    found = _all(reach(context.obj))
    if as_json:
        out(json.dumps(found))
    else:
        _table(found)
    return 0 if all(map(_is_well, found)) else 1


def _is_well(one: dict[str, Any]) -> bool:
    return one["state"] != "away" and not one.get("verify", {}).get("differences")


def _table(found: list[dict[str, Any]]) -> None:
    from gfs.cli.queries import print_rows

    columns = ["view", "state", "position", "lag", "events/s", "rows", "size", "dead letters",
               "differences"]  # fmt: skip
    rows = []
    for one in found:
        if one["state"] == "away":
            rows.append([one["view"], "away", *[None] * 7])
            continue
        rows.append([
            one["view"], one["state"], one["position"], f"{one['lag_ms']:.0f} ms",
            one["events_per_s"], sum(one.get("rows", {}).values()),
            size_text(one["disk_bytes"]), one["dead_letters"], one["verify"]["differences"],
        ])  # fmt: skip
    print_rows(columns, rows)
    for one in found:
        if one.get("problem"):
            remark(f"{one['view']}: {one['problem']}")


@click.command("status")
@cluster_option
@_json
@click.argument("name", required=False)
@click.pass_context
def status(context: click.Context, as_json: bool, name: str | None) -> int:
    """All about the view NAME, or about every view. Exit code as of `list`."""
    place = reach(context.obj)
    if name is None:
        found = _all(place)
    else:
        found = [_ask(place, name, "GET", "/status", rows="1")]
    if as_json:
        out(json.dumps(found if name is None else found[0]))
    else:
        for one in found:
            for line in _lines(one):
                out(line)
    return 0 if all(map(_is_well, found)) else 1


def _lines(one: dict[str, Any]) -> Iterator[str]:
    if one["state"] == "away":
        yield f"{one['view']}: {one['problem']}"
        return
    yield f"{one['view']}: {one['state']} at position {one['position']} (epoch {one['epoch']})"
    lag = "not known" if one["lag_ms"] < 0 else f"{one['lag_ms']:.0f} ms"
    yield f"  lag {lag}, {one['events_per_s']} events/s"
    rows = ", ".join(f"{count} {table}" for table, count in one.get("rows", {}).items())
    yield f"  {size_text(one['disk_bytes'])} on disk; rows: {rows or 'none yet'}"
    if one["last_rebuild_ns"]:
        when = time_text(one["last_rebuild_ns"])
        yield f"  last built {when}, in {one['last_rebuild_s']:.1f} s"
    if "rebuild" in one:
        yield f"  being built: {_progress_text(one['rebuild'])}"
    yield f"  {one['dead_letters']} dead letters"
    yield f"  verification: {_verified_text(one['verify'])}"
    if one["problem"]:
        yield f"  {one['problem']}"


def _verified_text(verify: dict[str, Any]) -> str:
    text = f"{verify['differences']} differences"
    if not verify["last_pass_ns"]:
        return f"{text} so far, {verify['inodes_total']} inodes looked at"
    when = time_text(verify["last_pass_ns"])
    return f"{text}; all {verify['last_pass_inodes']} inodes looked at, until {when}"


@click.command()
@cluster_option
@click.argument("name")
@click.pass_context
def pause(context: click.Context, name: str) -> None:
    """Have the view NAME apply nothing until `resume`, also after a restart. It still answers."""
    found = _ask(reach(context.obj), name, "POST", "/pause")
    out(f"{name} is paused at position {found['position']}")


@click.command()
@cluster_option
@click.argument("name")
@click.pass_context
def resume(context: click.Context, name: str) -> None:
    """Have the view NAME follow again."""
    found = _ask(reach(context.obj), name, "POST", "/resume")
    out(f"{name} follows again, from position {found['position']}")


@click.command()
@cluster_option
@click.option("--no-wait", is_flag=True, help="Only begin it; `status` shows how far it is.")
@click.argument("name")
@click.pass_context
def rebuild(context: click.Context, name: str, no_wait: bool) -> None:
    """Build the view NAME anew, from the newest checkpoint and the log.

    The running one answers, and follows, until the new one has caught up and takes its place.
    """
    place = reach(context.obj)
    before = _ask(place, name, "POST", "/rebuild")["last_rebuild_ns"]
    if no_wait:
        out(f"{name} is being built anew")
        return
    found = _watch(place, name, before)
    out(f"{name} was built anew in {found['last_rebuild_s']:.1f} s, position {found['position']}")


def _watch(place: Place, name: str, before: int) -> dict[str, Any]:
    """Show progress until the rebuild is done.

    Raises: CommandFailed: it failed.
    """
    answered = time.monotonic()
    with _bar(f"building {name}") as show:
        while True:
            try:
                found = _ask(place, name, "GET", "/status")
            except CommandFailed:
                if time.monotonic() - answered > AWAY_S:
                    raise
                time.sleep(POLL_S)
                continue
            answered = time.monotonic()
            if "rebuild" in found:
                show(found["rebuild"]["items"], found["rebuild"]["items_total"])
            elif not found["rebuilding"]:
                if found["last_rebuild_ns"] != before:
                    return found
                raise CommandFailed(f"{name}: {found['problem'] or 'the rebuild did not end'}")
            time.sleep(POLL_S)


def _progress_text(rebuild: dict[str, Any]) -> str:
    if rebuild["stage"] == "loading":
        return f"{rebuild['items']} of {rebuild['items_total']} items"
    return f"at position {rebuild['position']} of {rebuild['position_goal']}"


@click.command()
@cluster_option
@_json
@click.argument("name", required=False)
@click.pass_context
def verify(context: click.Context, as_json: bool, name: str | None) -> int:
    """Compare all of the view NAME, or of every view, with the master, now.

    Exit code 0 if nothing differs, 1 if something does or a view cannot be verified.
    """
    place = reach(context.obj)
    names = view_names(place.config) if name is None else [name]
    found = {view: _verify(place, view) for view in names}
    if as_json:
        out(json.dumps(found if name is None else found[name]))
    else:
        for view, one in found.items():
            _print_verified(view, one)
    return 1 if any(one.get("error") or one["differences"] for one in found.values()) else 0


def _verify(place: Place, view: str) -> dict[str, Any]:
    last: dict[str, Any] = {}
    try:
        with (
            view_client(place.config, view, ANSWER_S) as client,
            client.stream("POST", "/verify") as answer,
            _bar(f"verifying {view}") as show,
        ):
            if answer.status_code != 200:
                message = json.loads(answer.read()).get("message", answer.status_code)
                return {"error": str(message)}
            for line in answer.iter_lines():
                last = json.loads(line)
                if "inodes_before" in last:
                    show(last["inodes"], last["inodes_before"])
    except (httpx.HTTPError, ValueError) as error:
        return {"error": f"does not answer: {str(error) or type(error).__name__}"}
    return last if "differences" in last or "error" in last else {"error": "it was cut short"}


def _print_verified(view: str, one: dict[str, Any]) -> None:
    if "error" in one:
        remark(f"{view}: {one['error']}")
        return
    text = f"{one['inodes']} inodes compared in {one['seconds']:.1f} s, up to {one['cursor']}"
    if one["skipped"]:
        text += f", {one['skipped']} changed meanwhile"
    out(f"{view}: {one['differences']} differences; {text}")
    for kind, count in one["kinds"].items():
        out(f"  {count} {kind}")
        for example in one["examples"]:
            if example["kind"] == kind:
                out(f"    inode {example['ino']}: {example['text']}")


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; what it gives takes how much is done, and of how much (0: unknown)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    flush()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn())  # fmt: skip
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=max(total, done) or None)

        yield show


@click.command(
    "run",
    context_settings={
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "help_option_names": [],
    },
    add_help_option=False,
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def run(cluster: str | None, words: tuple[str, ...]) -> None:
    """Keep views, in the foreground: the same as `gfs projections` with options alone."""
    from gfs.cli.programs import become, with_cluster

    become("projections", with_cluster(list(words), cluster))
