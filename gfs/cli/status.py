"""`gfs status` and `gfs fsck`; also prints the report of `gfs cluster status`."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

from gfs.cli import drain_directory
from gfs.cli.finding import cluster_option, reach, shadow_option
from gfs.cli.output import out, size_text
from gfs.cluster.asking import ask
from gfs.cluster.layout import Layout
from gfs.messages import CheckFilesystem, Status

FSCK_S = 3600.0
PROBLEMS_SHOWN = 100


@click.command()
@cluster_option
@shadow_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def status(context: click.Context, as_json: bool) -> int:
    """Servers, chunks, views and their lag; exit code 1 if something is not as it should be."""
    from gfs.cluster.report import cluster_report, report

    place = reach(context.obj)
    local = "://" not in place.name
    config = place.config
    found = report(Layout(place.name), config) if local else cluster_report(config)
    if as_json:
        out(json.dumps(found))
    else:
        print_report(found)
    return 0 if found["ok"] else 1


@click.command()
@cluster_option
@click.option("--deep", is_flag=True, help="Chunk servers read every block of every replica first.")
@click.option("--repair", is_flag=True, help="Mend what can be mended without losing anything.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def fsck(context: click.Context, deep: bool, repair: bool, as_json: bool) -> int:
    """Compare namespace, chunk table, replicas and checksums, and name the files concerned.

    Changes nothing without --repair, which sets counts right, has missing copies made at once
    and deletes copies put aside that nobody needs; it never deletes the last copy of anything.

    Exit code 0 if nothing was wrong, 1 if something was.
    """
    place = reach(context.obj)
    answer = ask(place.config, CheckFilesystem(deep, repair), Status, FSCK_S)
    found: dict[str, Any] = json.loads(answer.json)
    problems = [str(problem) for problem in found.get("problems", [])]
    if as_json:
        out(answer.json)
    else:
        for problem in problems[:PROBLEMS_SHOWN]:
            out(problem)
        if len(problems) > PROBLEMS_SHOWN:
            out(f"... and {len(problems) - PROBLEMS_SHOWN} more (--json lists them)")
        for line in found.get("repaired", []):
            out(f"repaired: {line}")
        counts = ", ".join(f"{count} {what}" for what, count in found.get("checked", {}).items())
        total = found.get("problems_total", len(problems))
        verdict = f"{total} problems" if total else "no problems"
        out(f"checked {counts}: {verdict}" if counts else verdict)
    return 1 if problems or not found.get("ok", True) else 0


def print_report(found: dict[str, Any]) -> None:
    """The report as tables for people."""
    from rich.console import Console

    # Into a file or pipe nothing is cut: whoever reads it there has no window.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    if "processes" in found:
        console.print(_processes(found))
    master = found["master"]
    if "error" in master:
        console.print(f"master: {master['error']}", style="red", markup=False)
    else:
        _print_master(console, master)
    if found["views"]:
        console.print(_views(found["views"]))
    if "stream" in found:
        _print_stream(console, found["stream"])


def _table(*columns: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _processes(found: dict[str, Any]) -> Any:
    table = _table("process", "pid", "state")
    for one in found["processes"]:
        style = None if one["state"] == "running" else "red"
        table.add_row(one["name"], str(one["pid"] or "-"), one["state"], style=style)
    return table


def _print_master(console: Any, master: dict[str, Any]) -> None:
    def value(name: str) -> object:
        return master.get(name, "?")

    if "notice" in master:
        console.print(master["notice"], style="yellow", markup=False)
    console.print(
        f"cluster {value('cluster')}, epoch {value('epoch')}, position {value('position')}, "
        f"goal {value('goal')}, {value('files')} files, {value('sessions')} sessions"
    )
    chunks = master.get("chunks")
    if isinstance(chunks, dict):
        text = ", ".join(f"{count} {name.replace('_', '-')}" for name, count in chunks.items())
        console.print(f"chunks: {text}", style="red" if chunks.get("missing") else None)
    if copies := _copies_text(master.get("repair") or {}):
        console.print(f"copies: {copies}", style="yellow")
    if relocation := _relocation_text(master.get("relocation") or {}):
        console.print(f"relocation: {relocation}")
    for drain in master.get("drains") or []:
        console.print(_drain_text(drain))
    for drain in master.get("directory_drains") or []:
        console.print(drain_directory.text(drain), markup=False)
    table = _table("server", "address", "rack", "state", "replicas", "free", "of", "verified")
    for server in master.get("servers", []):
        alive = server.get("alive", True)
        table.add_row(
            str(server.get("server", "?")),
            str(server.get("address", "?")),
            str(server.get("rack") or "-"),
            _state(server),
            str(server.get("replicas", "?")),
            size_text(server.get("free_bytes", 0)),
            size_text(server.get("total_bytes", 0)),
            _since(server.get("verified_ns", 0)),
            style=None if alive else "red",
        )
    console.print(table)
    for server in master.get("servers", []):
        for error in server.get("errors", ()):
            console.print(f"server {server.get('server')}: {error}", style="red", markup=False)
    if master.get("mounts"):
        console.print(_mounts(master["mounts"]))
    for quota in master.get("quotas_exceeded") or []:
        console.print(quota_text(quota), style="yellow", markup=False)
    if master.get("shadows"):
        console.print(_shadows(master["shadows"]))
    if damage := master.get("log_damage"):
        text = f"an old part of the log is damaged, the state is whole: {damage}"
        console.print(text, style="red", markup=False)
    if not master.get("in_charge", True):
        text = "changes wait: this master does not hear enough chunk servers to be sure of itself"
        console.print(text, style="red", markup=False)


def quota_text(quota: dict[str, Any]) -> str:
    """A quota of which a limit is reached or a soft one exceeded."""
    parts = []
    for what, text in (("bytes", size_text), ("files", str)):
        used, hard = quota[f"used_{what}"], quota[f"{what}_max"]
        grace_s = quota[f"{what}_grace_s"]
        if grace_s >= 0:
            limit = quota[f"{what}_soft"]
            parts.append(f"{text(used)} used, soft limit {text(limit)}, {grace_text(grace_s)}")
        elif hard and used >= hard:
            parts.append(f"{text(used)} used of {text(hard)}")
    return f"quota of {quota['path'] or quota['ino']}: {'; '.join(parts)}"


def grace_text(grace_s: float) -> str:
    """What is left of the time in which a soft limit may be exceeded."""
    if not grace_s:
        return "the grace period is over"
    hours = grace_s / 3600
    return f"{hours:.0f} h of grace left" if hours < 48 else f"{hours / 24:.0f} d of grace left"


def _since(when_ns: int) -> str:
    """How long ago, roughly; "-": never."""
    if not when_ns:
        return "-"
    hours = max(0, time.time_ns() - when_ns) / 3.6e12
    return f"{hours:.0f} h ago" if hours < 48 else f"{hours / 24:.0f} d ago"


def _mounts(mounts: list[dict[str, Any]]) -> Any:
    from rich.markup import escape

    table = _table("mount", "host", "may")
    for one in mounts:
        table.add_row(escape(one["mount"]), escape(one["host"]), one["may"])
    return table


def _shadows(shadows: list[dict[str, Any]]) -> Any:
    table = _table("shadow", "address", "state", "position", "behind", "heard")
    for one in shadows:
        alive = one["alive"]
        state = ("keeps up" if one["keeps_up"] else "behind") if alive else "away"
        figures = [str(one["position"]), str(one["behind"]), f"{one['heard_s']} s ago"]
        shown = figures if alive else ["-", "-", "-"]
        table.add_row(one["shadow"], one["address"], state, *shown, style=None if alive else "red")
    return table


def _state(server: dict[str, Any]) -> str:
    state = "up" if server.get("alive", True) else "down"
    return f"{state}, draining" if server.get("draining") else state


def _copies_text(repair: dict[str, Any]) -> str:
    """What is being done about chunks that have too few or too many copies; empty: nothing."""
    parts = [
        ("waiting to be copied", "waiting"),
        ("with no server to take them", "stuck"),
        ("being copied", "copying"),
        ("being moved", "moving"),
        ("with copies to give up", "surplus"),
    ]
    shown = [f"{repair[key]} {text}" for text, key in parts if repair.get(key)]
    return ", ".join(shown)


def _relocation_text(figures: dict[str, Any]) -> str:
    """What is to be brought together, and what has been; empty: neither."""
    parts = [
        ("mostly dead chunks", "sparse_chunks"),
        ("small tails", "small_tails"),
        ("scattered files", "scattered_files"),
    ]
    shown = [f"{figures[key]} {text} found" for text, key in parts if figures.get(key)]
    if moved := figures.get("moved_bytes_total"):
        shown.append(f"{size_text(moved)} moved since the start")
    return ", ".join(shown)


def _drain_text(drain: dict[str, Any]) -> str:
    if drain.get("done"):
        return f"server {drain['server']} is drained: it may be switched off"
    left = size_text(drain.get("bytes_left", 0))
    return f"server {drain['server']} drains: {drain.get('chunks_left')} chunks, {left} left"


def _view_note(view: dict[str, Any]) -> str:
    """What is not as usual with a view."""
    state = view.get("state", "following")
    differences = view.get("verify", {}).get("differences")
    parts = ["" if state == "following" else state, view.get("problem", "")]
    parts.append(f"{differences} differences" if differences else "")
    return ", ".join(part for part in parts if part)


def lag_text(consumer: dict[str, Any]) -> str:
    """How far a consumer of the stream is behind."""
    if consumer["lag_ms"] is None:
        return "reset: its place is no longer in the log"
    behind = consumer["lag_positions"]
    return f"{behind} records, {consumer['lag_ms']:.0f} ms behind" if behind else "up to date"


def _print_stream(console: Any, stream: dict[str, Any]) -> None:
    if "error" in stream:
        console.print(f"stream: {stream['error']}", style="red", markup=False)
        return
    hours = stream.get("log_age_s", 0) / 3600
    kept = f"log kept from {stream.get('first_position')}, {size_text(stream.get('log_bytes', 0))}"
    console.print(f"stream: {stream.get('readers')} readers, {kept}, {hours:.0f} h")
    if consumers := stream.get("consumer"):
        table = _table("consumer", "readers", "lag")
        for name, one in consumers.items():
            style = "red" if one["lag_ms"] is None else None
            table.add_row(name, str(one["readers"]), lag_text(one), style=style)
        console.print(table)


def _views(views: list[dict[str, Any]]) -> Any:
    table = _table("view", "position", "lag", "")
    for view in views:
        if "error" in view:
            table.add_row(view["view"], "-", "-", view["error"], style="red")
            continue
        note = _view_note(view)
        lag = view.get("lag_ms")
        shown = "?" if lag is None else f"{lag:.0f} ms"
        table.add_row(view["view"], str(view.get("position", "?")), shown, note)
    return table
