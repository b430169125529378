"""Which cluster a command means, and which file of it a path means.

The cluster: ``--cluster``, else ``GFS_CLUSTER``, else the mount that a path given or
the current directory lies in, else what the settings name. A path: below a mountpoint
of this cluster, the file there; a relative one inside a mount starts where one stands;
otherwise from the root.
Nothing here touches a mount: one that hangs must not hang `gfs status`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gfs import mounts
from gfs.cli.output import remark
from gfs.cluster.asking import key_of
from gfs.cluster.layout import Layout
from gfs.config import ClientConfig, load_section
from gfs.errors import BadKey, GfsError, Unreachable, UsageError
from gfs.messages import Actor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gfs.client.filesystem import Filesystem

URL_SCHEME = "gfs://"
_ADDRESS = re.compile(r"[^/]+:\d+")
CONNECT_S = 10.0
_SHADOW = "gfs.shadow"
_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Place:
    """A cluster and where one stands in it.

    Attributes:
      name: directory or URL, as mounts of this cluster carry it.
      here: the current directory inside the filesystem; b"/" outside of mounts.
      inside: whether one stands in a mount of it.
      subtrees: of mountpoints that show a part of it, which.
    """

    name: str
    config: ClientConfig
    mountpoints: tuple[bytes, ...] = ()
    here: bytes = b"/"
    inside: bool = False
    subtrees: Mapping[bytes, bytes] = field(default_factory=dict)

    def path(self, given: str | bytes) -> bytes:
        """The absolute path inside the filesystem that `given` means."""
        raw = os.fsencode(given)
        if not raw.startswith(b"/"):
            return self.here.rstrip(b"/") + b"/" + raw
        for point in self.mountpoints:
            if raw == point or raw.startswith(point.rstrip(b"/") + b"/"):
                return self._subtree(point) + raw[len(point.rstrip(b"/")) :] or b"/"
        return raw

    def _subtree(self, point: bytes) -> bytes:
        return self.subtrees.get(point, b"/").rstrip(b"/")

    def on_host(self, path: bytes) -> bytes | None:
        """A path of this host that leads to a path inside; None: no mount here shows it."""
        for point in self.mountpoints:
            below = self._subtree(point)
            if path == below or path.startswith(below + b"/"):
                return point + path[len(below) :]
        return None


def lock_variables(cluster: str, ino: int, fence: int) -> dict[str, str]:
    """What a command that runs under a lock finds in its environment."""
    return {"GFS_LOCK_FENCE": str(fence), "GFS_LOCK_ID": f"{cluster}:{ino}:{fence}"}


def fences_of(environment: Mapping[str, str], cluster: str) -> list[tuple[int, int]]:
    """The lock of this cluster under which this command runs, if any: it changes nothing without.

    Raises:
      UsageError: somebody has written nonsense there.
    """
    given = environment.get("GFS_LOCK_ID", "")
    if not given:
        return []
    found = re.fullmatch(r"(\w+):(\d{1,19}):(\d{1,19})", given, re.ASCII)
    if found is None:
        raise UsageError(f"GFS_LOCK_ID={given[:60]!r} is not what `gfs lock` sets")
    return [(int(found[2]), int(found[3]))] if found[1] == cluster else []


def actor() -> Actor:
    """The caller: its real user and all its groups."""
    return Actor(os.getuid(), os.getgid(), os.getpid(), tuple(os.getgroups()))


def cluster_option(command: _F) -> _F:
    """Give a command ``--cluster``, which may also stand before the command's name."""
    return click.option(
        "--cluster", metavar="DIR-or-URL", help="Which cluster.", expose_value=False,
        callback=_remember,
    )(command)  # fmt: skip


def shadow_option(command: _F) -> _F:
    """Give a command that only reads ``--shadow``."""
    return click.option(
        "--shadow", is_flag=True, expose_value=False, callback=_from_shadow,
        help="Ask a shadow master, whose answer may be old (when the master is away).",
    )(command)  # fmt: skip


def _from_shadow(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.meta[_SHADOW] = True


def _remember(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.obj = value


def reach(cluster: str | None, paths: Sequence[str | bytes] = ()) -> Place:
    """Find the cluster.

    Raises:
      UsageError: none is named and one stands in no mount, or there is none of that name.
    """
    here = os.fsencode(os.getcwd())
    name = cluster or os.environ.get("GFS_CLUSTER") or _of_mounts(here, paths) or _of_settings()
    if name is None:
        raise UsageError(
            "which cluster? Give --cluster DIR, set GFS_CLUSTER, or stand in a mount of it"
        )
    config, name = _config(name)
    context = click.get_current_context(silent=True)
    if context is not None and context.meta.get(_SHADOW):
        config.read_from_shadow = True
    # A mount started by hand may carry the address alone.
    same = {name, name.removeprefix(URL_SCHEME)}
    subtrees = {one.mountpoint: one.subtree for one in mounts.mounted() if one.cluster in same}
    own = tuple(sorted(subtrees, key=len, reverse=True))
    place = Place(name, config, own, subtrees=subtrees)
    inside = any(here == point or here.startswith(point + b"/") for point in own)
    return replace(place, here=place.path(here), inside=True) if inside else place


def _of_mounts(here: bytes, paths: Sequence[str | bytes]) -> str | None:
    for path in paths:
        if (found := mounts.mount_of(os.path.join(here, os.fsencode(path)))) is not None:
            return found.cluster
    found = mounts.mount_of(here)
    return found.cluster if found is not None else None


def _of_settings() -> str | None:
    """The cluster that $GFS_CONFIG, or a variable, names."""
    config, _ = load_section("client")
    assert isinstance(config, ClientConfig)
    if not config.master:
        return None
    return config.cluster_dir or f"{URL_SCHEME}{config.master}"


def _config(name: str) -> tuple[ClientConfig, str]:
    if _ADDRESS.fullmatch(name) and not os.path.exists(name):
        name = URL_SCHEME + name
    if name.startswith(URL_SCHEME):
        config, _ = load_section(
            "client", flags={"master": name.removeprefix(URL_SCHEME).strip("/")}
        )
    elif "://" in name:
        raise UsageError(f"{name}: a cluster is a directory or {URL_SCHEME}HOST:PORT")
    else:
        layout = Layout(name)
        layout.load()
        name = str(layout.directory)
        config, _ = load_section("client", file=layout.toml)
    assert isinstance(config, ClientConfig)
    return config, name


@asynccontextmanager
async def connected(place: Place) -> AsyncIterator[Filesystem]:
    """The files of this cluster, as the caller may use them.

    Raises:
      GfsError: the master cannot be reached, or refuses.
    """
    from gfs.client.client import open_client
    from gfs.client.filesystem import Filesystem
    from gfs.client.settings import ClientSettings

    settings = ClientSettings(
        master=place.config.master,
        master_unix=place.config.master_unix,
        key=key_of(place.config),
        cluster=place.config.cluster_id,
        connect_timeout_s=CONNECT_S,
        shadow=place.config.read_from_shadow,
    )
    try:
        async with open_client(settings) as client:
            if client.link.notice:
                remark(client.link.notice)
            client.link.fences = fences_of(os.environ, client.link.cluster)
            yield Filesystem(client, actor())
    except Unreachable as error:
        raise Unreachable(f"{place.name}: {error}") from None
    except BadKey as error:
        if settings.key is None and place.config.key_file:
            raise BadKey(f"{error}, and {place.config.key_file} cannot be read") from None
        raise


@contextmanager
def about(path: bytes) -> Iterator[None]:
    """Errors inside name the path, as those of ordinary tools do."""
    try:
        yield
    except GfsError as error:
        shown = path.decode("utf-8", "surrogateescape")
        text = os.strerror(error.errno) if str(error) in ("", error.code) else str(error)
        if shown not in text:
            text = f"{shown}: {text}"
        raise type(error)(text) from None
