"""Which processes a local cluster has, and the flags each is started with.

The master's flags hold every port; the others find the master by its Unix socket
first, so a changed port of the master does not cut off what already runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gfs.cluster.layout import Facts, Layout

VIEWS = ("search", "analytics")
SHADOW_PORTS = ["shadow", "shadow_http", "shadow_stream"]


@dataclass(frozen=True)
class Spec:
    """One process: started when all of `stage` below it are ready.

    Attributes:
      ports: names in `Facts.addresses` that it listens on.
      mountpoint: where it mounts, for mounts.
    """

    name: str
    program: str
    stage: int
    arguments: list[str]
    ports: list[str] = field(default_factory=list)
    mountpoint: Path | None = None


def port_names(facts: Facts) -> list[str]:
    """Every name that needs an address."""
    names = ["master", "master_http", "stream"]
    if facts.shadow:
        names += SHADOW_PORTS
    for number in range(1, facts.chunkservers + 1):
        names += [f"chunkd{number}", f"chunkd{number}_http"]
    return names + (list(VIEWS) if facts.projections else [])


def specs(layout: Layout, facts: Facts, *, mounts: bool = True) -> Iterator[Spec]:
    """All processes in the order of their start."""
    yield _master(layout, facts)
    if facts.shadow:
        yield _shadow(layout, facts)
    for number in range(1, facts.chunkservers + 1):
        yield _chunkd(layout, facts, f"chunkd{number}")
    if facts.projections:
        for view in VIEWS:
            yield _view(layout, facts, view)
    if mounts:
        for number in range(1, facts.mounts + 1):
            yield _mount(layout, facts, number)


def _shared(layout: Layout, facts: Facts, name: str) -> list[str]:
    flags = ["--config", str(layout.config)] if layout.config.exists() else []
    return [
        *flags,
        *_flag("cluster-id", facts.id),
        *_flag("key-file", layout.key),
        *_flag("cluster-dir", layout.directory),
        *_flag("ready-file", layout.ready(name)),
        *_flag("log-file", layout.log(name)),
    ]


def _flag(name: str, value: object) -> list[str]:
    return [f"--{name}={value}"]  # one word: a value may begin with a dash


def _to_master(layout: Layout, facts: Facts) -> list[str]:
    found = layout.to_master(facts)
    return [*_flag("master", found["master"]), *_flag("master-unix", found["master_unix"])]


def _master(layout: Layout, facts: Facts) -> Spec:
    ports = ["master", "master_http", "stream"]
    arguments = _master_flags(layout, facts, "master", ports, ["master", "http", "stream"])
    # Once it has led, the shadow may have taken over, and it is to be the shadow then.
    if facts.shadow and (layout.data("master") / "led").exists():
        arguments += _flag("follow", facts.addresses["shadow"])
    return Spec("master", "master", 0, arguments, ports)


def _shadow(layout: Layout, facts: Facts) -> Spec:
    sockets = ["shadow", "shadow-http", "shadow-stream"]
    arguments = _master_flags(layout, facts, "shadow", SHADOW_PORTS, sockets)
    arguments += _flag("follow", facts.addresses["master"])
    return Spec("shadow", "master", 0, arguments, SHADOW_PORTS)


def _master_flags(
    layout: Layout, facts: Facts, name: str, ports: list[str], sockets: list[str]
) -> list[str]:
    address, http, stream = (facts.addresses[port] for port in ports)
    unix, http_unix, stream_unix = (layout.socket(facts, socket) for socket in sockets)
    return [
        *_shared(layout, facts, name),
        *_flag("data-dir", layout.data(name)),
        *_flag("address", address),
        *_flag("unix", unix),
        *_flag("http", http),
        *_flag("http-unix", http_unix),
        *_flag("stream-http", stream),
        *_flag("stream-unix", stream_unix),
        *_flag("goal", facts.goal),
        *(_flag("write-min", 1) if facts.chunkservers == 1 else []),
    ]


def _chunkd(layout: Layout, facts: Facts, name: str) -> Spec:
    arguments = [
        *_shared(layout, facts, name),
        *_to_master(layout, facts),
        *_flag("data-dirs", layout.data(name)),
        *_flag("address", facts.addresses[name]),
        *_flag("unix", layout.socket(facts, name)),
        *_flag("http", facts.addresses[f"{name}_http"]),
    ]
    # Masters that could have superseded each other ask the chunk servers which of them leads.
    return Spec(name, "chunkd", 0 if facts.shadow else 1, arguments, [name, f"{name}_http"])


def _view(layout: Layout, facts: Facts, view: str) -> Spec:
    name = f"projections-{view}"
    stream = layout.to_stream(facts)
    arguments = [
        *_shared(layout, facts, name),
        *_flag("view", view),
        *_flag("data-dir", layout.data(name)),
        *_flag("stream", stream["stream"]),
        *_flag("stream-unix", stream["stream_unix"]),
        *_flag("http", facts.addresses[view]),
        *_flag("unix", layout.socket(facts, view)),
    ]
    return Spec(name, "projections", 1, arguments, [view])


def _mount(layout: Layout, facts: Facts, number: int) -> Spec:
    name = f"mount{number}"
    point = layout.mountpoint(number)
    arguments = [*_shared(layout, facts, name), *_to_master(layout, facts), str(point)]
    return Spec(name, "mount", 2, arguments, mountpoint=point)
