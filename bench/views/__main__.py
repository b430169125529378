"""The views at full size: how fast they follow, what they keep, how fast they answer.

    python -m bench.views [--files N] [--mutations N] [--only PART,...] [--json FILE]

Makes a master's state of N files, starts a real master with its stream and the real
projections processes on it, and measures, all in one run:

    rebuild    a view from the master's checkpoint, and the bytes a file that it lies in
    events     a log of mixed mutations (creates, updates, renames, deletes) into each view alone
               and into both at once, with the processor time an event of each process
    lag        of both views at 1,000 mutations a second
    rename     of the directory that holds everything
    queries    over HTTP and inside, beside find and du, plocate, and an index of databases
"""

from __future__ import annotations

import json
import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

import click
import trio
from rich.console import Console
from rich.table import Table

from bench import machine, report
from bench.setting import directory_option, local_cluster
from bench.views import follow, mounted, peers, queries
from bench.views.load import Load
from bench.views.stage import VIEWS, Stage
from bench.views.state import make_state

PARTS = ("rebuild", "events", "lag", "rename", "queries")
GOALS = {
    "rebuild search seconds": "30 of 1 M files",
    "rebuild analytics seconds": "30 of 1 M files",
    "events search events_per_s": "30,000",
    "events analytics events_per_s": "100,000",
    "events both events_per_s": "25,000",
    "bytes_per_file sum": "250",
    "lag search p50_ms": "50",
    "lag search p99_ms": "500",
    "lag analytics p50_ms": "50",
    "lag analytics p99_ms": "500",
    "rename search apply_median_ms": "100",
    "rename analytics apply_median_ms": "100",
    "queries http search substring": "20 ms",
    "queries http search find_rare": "20 ms",
    "queries http search du": "5 ms",
    "queries http search top_20": "5 ms",
    "queries http analytics top_20": "5 ms",
    "queries http analytics histogram": "50 ms",
}
messages = Console(stderr=True, highlight=False)


@click.command(help=__doc__)
@click.option("--files", default=1_000_000, show_default=True, type=click.IntRange(1000))
@click.option(
    "--mutations",
    default=120_000,
    show_default=True,
    type=click.IntRange(1000),
    help="Of each backlog.",
)
@click.option("--rate", default=1000, show_default=True, help="Mutations a second, for the lag.")
@click.option("--seconds", default=15.0, show_default=True, help="For the lag.")
@click.option("--only", default=",".join(PARTS), show_default=True, help="Parts, by commas.")
@click.option("--peers/--no-peers", "with_peers", default=True, help="Beside find, plocate, GUFI.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write figures here.")
@directory_option
def main(
    files: int,
    mutations: int,
    rate: int,
    seconds: float,
    only: str,
    with_peers: bool,
    json_file: Path | None,
    directory: Path,
) -> None:
    parts = only.split(",")
    if unknown := set(parts) - set(PARTS):
        raise click.UsageError(f"there is no part {min(unknown)!r}; there are {', '.join(PARTS)}")
    logging.basicConfig(level=logging.WARNING)
    found: dict[str, Any] = {"machine": machine.facts(directory), "files": files}
    try:
        with local_cluster(directory) as layout:
            stage = Stage(layout)
            _measure(stage, found, parts, files, mutations, rate, seconds)
            if "queries" in parts:
                _ask(stage, found, layout.directory.parent, files, with_peers=with_peers)
    finally:
        _show(found)
        if json_file is not None:
            json_file.write_text(json.dumps(found, indent=1) + "\n")


def _say(text: str) -> None:
    messages.print(f"{time.strftime('%H:%M:%S')} {text}", style="dim")


def _measure(
    stage: Stage,
    found: dict[str, Any],
    parts: list[str],
    files: int,
    mutations: int,
    rate: int,
    seconds: float,
) -> None:
    _say(f"making a state of {files:,} files")
    began = time.monotonic()
    made = make_state(stage.master_directory, stage.facts.id, files)
    _say(f"made in {time.monotonic() - began:.0f} s; starting the master")
    stage.start(mounts=1, say=_say)
    found["rebuild"] = {}
    for view in VIEWS:
        _say(f"building the {view} view")
        found["rebuild"][view] = follow.rebuild(stage, view)
    found["bytes_per_file"] = follow.bytes_a_file(stage)
    load = Load(made)
    if "events" in parts:
        found["events"] = _events(stage, load, mutations)
        found["bytes_per_file_after_events"] = follow.bytes_a_file(stage)
    if "lag" in parts:
        _say(f"lag at {rate} mutations a second")
        found["lag"] = trio.run(follow.lag, stage, load, rate, seconds)
    if "rename" in parts:
        _say("renaming the directory that holds everything")
        found["rename"] = follow.rename(stage)


def _events(stage: Stage, load: Load, mutations: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, groups in (("alone", [(view,) for view in VIEWS]), ("both", [VIEWS])):
        _say(f"{mutations:,} mutations by the master")
        took = trio.run(load.fill, stage, mutations)
        result.setdefault("master_mutations_per_s", round(mutations / took))
        for views in groups:
            key = views[0] if name == "alone" else name
            _say(f"events into {' and '.join(views)}")
            result[key] = follow.backlog(stage, views, load.position)
    return result


def _ask(
    stage: Stage, found: dict[str, Any], directory: Path, files: int, *, with_peers: bool
) -> None:
    arguments = queries.Arguments.of(files)
    _say("queries over HTTP")
    found["queries"] = {"http": queries.over_http(stage, arguments)}
    _say("queries inside")
    found["queries"]["inside"] = trio.run(queries.inside, stage, arguments)
    if not with_peers:
        return
    _say("find and du on the mount")
    ask = partial(mounted.find_and_du, stage.layout.mountpoint(1), files)
    found["queries"]["mount"] = ask(arguments.rare)
    _say("making the local tree")
    tree = peers.LocalTree(directory / "tree", files)
    beside = found["queries"]
    _say("find and du on it")
    beside["local"] = peers.find_and_du(tree.path, arguments.rare, arguments.directories)
    _say("plocate")
    beside["plocate"] = peers.plocate(tree.path, directory, arguments.rare, arguments.parts)
    _say("an index of databases")
    beside["databases"] = peers.databases(
        tree.path, directory, arguments.rare, arguments.parts, arguments.directories
    )


def _show(found: dict[str, Any]) -> None:
    """A row a figure."""
    facts = found["machine"]
    title = (
        f"{found['files']:,} files; {facts['cores']} cores, {facts['memory_gib']} GiB, load"
        f" {facts['load_before']:.1f} before, commit {facts['commit']}"
    )
    table = Table(title=title, title_justify="left", pad_edge=False)
    table.add_column("figure", no_wrap=True)
    table.add_column("value", justify="right")
    table.add_column("goal", justify="right", style="dim")
    for part, value in found.items():
        if part not in ("machine", "files"):
            table.add_section()
            for name, text in _rows(part, value):
                table.add_row(name, text, GOALS.get(name.partition(" (")[0], ""))
    report.output().print(table)


def _rows(name: str, value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, dict):
        return [(name, value if isinstance(value, str) else report.digits(value))]
    if "median_ms" in value:
        text = f"{report.digits(value['median_ms'])} / {report.digits(value['p95_ms'])} ms"
        return [(f"{name} (median / p95 of {value['times']})", text)]
    return [row for key, part in value.items() for row in _rows(f"{name} {key}", part)]


if __name__ == "__main__":
    main()
