"""How a cluster is: processes, the master's word, views and their lag.

Each part is asked on its own and may fail on its own; a report with a hole in it is
what one needs most when something is down.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx

from gfs.bearer import authorization, is_tls
from gfs.cluster import plan
from gfs.cluster.asking import cluster_status, key_of, usable_unix
from gfs.cluster.layout import Layout
from gfs.cluster.processes import Registry, state_of
from gfs.cluster.up import client_config
from gfs.config import ClientConfig
from gfs.errors import GfsError, UsageError
from gfs.masters import places
from gfs.mounts import mounted

VIEW_S = 5.0
VIEWS = ("search", "analytics")  # those that have settings of their own


def report(layout: Layout, config: ClientConfig | None = None) -> dict[str, Any]:
    """Everything about a local cluster; ``ok`` is False if something should be looked at.

    `config`: how to reach it, if not as its own file says.

    Raises:
      UsageError: there is no cluster.
    """
    facts = layout.load()
    known = {process.name: process for process in Registry(layout).all()}
    processes: list[dict[str, Any]] = []
    for spec in plan.specs(layout, facts):
        process = known.get(spec.name)
        state = state_of(process) if process is not None else "not started"
        pid = process.pid if process is not None else None
        processes.append({"name": spec.name, "pid": pid, "state": state})
    points = [one.mountpoint for one in mounted() if one.cluster == str(layout.directory)]
    found = cluster_report(config or client_config(layout))
    found["directory"] = str(layout.directory)
    found["processes"] = processes
    found["mounts"] = [point.decode("utf-8", "replace") for point in points]
    found["ok"] = found["ok"] and all(one["state"] == "running" for one in processes)
    return found


def cluster_report(config: ClientConfig) -> dict[str, Any]:
    """What master and views say, wherever they run."""
    found: dict[str, Any] = {"ok": True}
    try:
        found["master"] = cluster_status(config)
    except (GfsError, UsageError) as error:
        found["master"] = {"error": str(error)}
    found["views"] = list(_views(config))
    parts = [found["master"], *found["views"]]
    if config.stream or config.stream_unix:
        found["stream"] = _status_of(config, "stream", "/statistics")
        parts.append(found["stream"])
    found["ok"] = not any("error" in part for part in parts)
    if any(view.get("verify", {}).get("differences") for view in found["views"]):
        found["ok"] = False
    if any(server.get("errors") for server in found["master"].get("servers", ())):
        found["ok"] = False  # disks that do not work
    if (chunks := found["master"].get("chunks")) and isinstance(chunks, dict):
        found["ok"] = found["ok"] and not chunks.get("missing")
    return found


def view_client(config: ClientConfig, view: str, timeout_s: float | None) -> httpx.Client:
    """HTTP to a view, paths below its own: by its Unix socket if there is one here, else TCP.

    "stream", which is no view, is found in the same way.

    Raises:
      UsageError: this cluster names no such view.
    """
    is_view = view != "stream"
    places_of = _places_of_views(config) | {"stream": (config.stream, config.stream_unix)}
    urls, sockets = places_of.get(view, ("", ""))
    if not urls and not sockets:
        where = f'{view} = "URL"' if hasattr(config, view) else f'views = "{view}=URL"'
        raise UsageError(f"this cluster's {view} is not known: set [client] {where}")
    url, unix = _answering(urls, sockets)
    key = key_of(config)
    # A process of several views has each below its name, one of a single view has it too.
    return httpx.Client(
        base_url=(url or "http://localhost").rstrip("/") + (f"/{view}" if is_view else ""),
        transport=httpx.HTTPTransport(uds=unix or None, verify=is_tls(url) and not unix),
        headers=authorization(key) if key else {},
        timeout=timeout_s,
        trust_env=False,
    )


def view_names(config: ClientConfig) -> list[str]:
    """The views that the settings name."""
    return list(_places_of_views(config))


def _places_of_views(config: ClientConfig) -> dict[str, tuple[str, str]]:
    """View -> URLs and Unix sockets."""
    found = {}
    for view in VIEWS:
        urls, sockets = getattr(config, view), getattr(config, f"{view}_unix")
        if urls or sockets:
            found[view] = (urls, sockets)
    for one in filter(None, config.views.split(",")):
        name, _, url = one.strip().partition("=")
        if not (name and url):
            raise UsageError(f"[client] views: {one!r} is not NAME=URL")
        found[name] = (url, "")
    return found


def _answering(urls: str, sockets: str) -> tuple[str, str]:
    """URL and usable Unix socket; of several (gfs.masters) the first where somebody listens."""
    known = places(urls, sockets)
    for place in known:
        unix = usable_unix(place.unix)
        if len(known) == 1 or unix:
            return place.address, unix
        where = httpx.URL(place.address)
        with suppress(OSError), socket.create_connection((where.host, where.port or 80), 1.0):
            return place.address, ""
    return known[0].address, ""


def _views(config: ClientConfig) -> Iterator[dict[str, Any]]:
    for view in view_names(config):
        yield {"view": view, **_status_of(config, view, "/status")}


def _status_of(config: ClientConfig, view: str, path: str) -> dict[str, Any]:
    try:
        with view_client(config, view, VIEW_S) as client:
            answer = client.get(path)
            found = answer.json()
    except (httpx.HTTPError, ValueError, GfsError, UsageError) as error:
        return {"error": str(error) or type(error).__name__}
    if answer.status_code != 200:
        return {"error": str(found.get("message", answer.status_code))}
    return dict(found)
