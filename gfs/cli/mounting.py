"""`gfs mount-helper`: what mount(8) runs as /sbin/mount.fuse.gfs.

    mount.fuse.gfs SOURCE MOUNTPOINT [-sfnv] [-o WORDS] [-t TYPE]

It starts `gfs mount` as a process of its own and returns when the place is mounted, or
says why not. SOURCE is ``HOST:PORT[,HOST:PORT][/SUB/TREE]`` or
``DIRECTORY-OF-A-CLUSTER[//SUB/TREE]`` and shown as it is by findmnt(8), so that
`mount -a` finds it again. Exit codes are mount(8)'s.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from gfs import mounts
from gfs.cli.output import complain
from gfs.cluster.layout import Layout
from gfs.cluster.processes import program_command
from gfs.config import load_section
from gfs.errors import UsageError
from gfs.sections import MountConfig

EXIT_USAGE, EXIT_SYSTEM, EXIT_FAILED = 1, 2, 32
CONFIG, KEY = Path("/etc/gfs/gfs.toml"), Path("/etc/gfs/key")
START_S = 60.0  # the mount itself gives up on its master before


@dataclass(frozen=True)
class Wanted:
    """A mount as mount(8) asks for it."""

    source: str
    mountpoint: str
    words: Sequence[str]  # of -o

    def value(self, name: str) -> str:
        """What a word ``NAME=VALUE`` gives; "": there is none."""
        found = [word.partition("=")[2] for word in self.words if word.startswith(f"{name}=")]
        return found[-1] if found else ""


@click.command(name="mount-helper")
@click.argument("source")
@click.argument("mountpoint")
@click.option("-o", "options", multiple=True, help="Words between commas, as in fstab.")
@click.option("-t", "kind", help="Type, of which mount(8) has found us by.")
@click.option("-f", "fake", is_flag=True, help="Do nothing.")
@click.option("-n", is_flag=True, expose_value=False, help="As always: no mtab is written.")
@click.option(
    "-s", is_flag=True, expose_value=False, help="Unknown words are refused all the same."
)
@click.option("-v", "verbose", is_flag=True, help="Say what was mounted.")
def mount_helper(
    source: str, mountpoint: str, options: tuple[str, ...], kind: str, fake: bool, verbose: bool
) -> int:
    """Mount SOURCE at MOUNTPOINT for mount(8) and fstab, and return when it is mounted."""
    if fake:
        return 0
    words = [word for text in options for word in text.split(",") if word]
    try:
        wanted = Wanted(source, os.path.abspath(mountpoint), words)
        command, environment = _command(wanted)
    except UsageError as error:
        complain(str(error))
        return EXIT_USAGE
    try:
        code = _start(command, environment)
    except OSError as error:
        complain(f"cannot start {command[0]}: {error.strerror}")
        return EXIT_SYSTEM
    if not code and verbose:
        click.echo(f"gfs: {source} mounted on {mountpoint}.")
    return code


def _command(wanted: Wanted) -> tuple[list[str], dict[str, str]]:
    """The command line of `gfs mount`, and its environment.

    Raises:
      UsageError: source, configuration or words cannot be understood.
    """
    if "remount" in wanted.words:
        raise UsageError("options of a mount cannot be changed: umount it, then mount it anew")
    cluster, subtree = mounts.parse_source(wanted.source)
    flags = []
    file = wanted.value("config") or (str(CONFIG) if CONFIG.exists() else "")
    if cluster.startswith("/"):
        layout = Layout(cluster)
        layout.load()
        file = str(layout.toml)
        flags.append(f"--cluster-dir={layout.directory}")
    else:
        flags.append(f"--master={cluster.removeprefix('gfs://')}")
        if not file and KEY.exists():
            flags.append(f"--key-file={KEY}")
    if file:
        flags.append(f"--config={file}")
    if subtree != "/":
        if wanted.value("subtree"):
            raise UsageError(f"a subtree stands in {wanted.source} and among the options")
        flags.append(f"--subtree={subtree}")
    shown = wanted.source + _below(wanted.source, wanted.value("subtree"))
    flags += [
        f"--source={shown}",
        "--new-session",
        f"--log-file={_log_file(file, wanted.mountpoint)}",
    ]
    passed = [word for word in wanted.words if not word.startswith("config=")]
    command, environment = program_command("mount")
    words = [f"--options={','.join(passed)}"] if passed else []
    return [*command, *flags, *words, wanted.mountpoint], environment


def _below(source: str, subtree: str) -> str:
    """How a subtree that was given by a word is shown behind the source."""
    name = subtree.strip("/")
    return ("//" if source.startswith("/") else "/") * bool(name) + name


def _log_file(config: str, mountpoint: str) -> str:
    """Where the mount logs: as configured, else a file named by its place."""
    found, _ = load_section("mount", file=config or None)
    assert isinstance(found, MountConfig)
    if found.log_file:
        return found.log_file
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    directory = Path("/var/log/gfs" if os.geteuid() == 0 else f"{state}/gfs")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {directory} for the log: {error.strerror}") from None
    return str(directory / f"mount{mountpoint.rstrip('/').replace('/', '-')}.log")


def _start(command: list[str], environment: dict[str, str]) -> int:
    """Run the mount detached until it serves (0), or has failed and said why.

    It leaves our process group itself, when it has mounted: where systemd has an automount, all
    others that come near the place wait until that is done.
    """
    with _notifications() as (listener, path), tempfile.TemporaryFile() as said:
        started = subprocess.Popen(
            command,
            env={**environment, "NOTIFY_SOCKET": path},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        if _is_ready(listener, started.pid):
            started.returncode = 0  # nobody waits for it: it is meant to outlive us
            return 0
        if started.poll() is None:
            started.terminate()
            started.wait()
            complain(f"not mounted within {START_S:.0f} s")
        said.seek(0)
        for line in said.read().splitlines()[-5:]:
            complain(line.decode(errors="replace").removeprefix("gfs mount: "))
        return EXIT_FAILED


@contextlib.contextmanager
def _notifications() -> Iterator[tuple[socket.socket, str]]:
    """A socket as that of sd_notify(3)."""
    name = f"\0gfs-mount-helper-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name)
        yield listener, "@" + name[1:]


def _is_ready(listener: socket.socket, pid: int) -> bool:
    """Wait for the message of a process that serves, or for its end."""
    process = os.pidfd_open(pid)
    try:
        waiting = select.poll()
        waiting.register(listener, select.POLLIN)
        waiting.register(process, select.POLLIN)
        found = waiting.poll(START_S * 1000)
        return any(descriptor == listener.fileno() for descriptor, _ in found)
    finally:
        os.close(process)
