"""Debian packages of the peers: installed when permitted, else the command is said."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

from bench.targets.commands import run
from bench.targets.target import TargetFailed, Unavailable

INSTALL_LIMIT_S = 600.0
POLICY = "/usr/sbin/policy-rc.d"  # while it says 101, Debian starts no service


def require(programs: dict[str, str]) -> None:
    """Make sure that each program is there.

    Args:
      programs: program -> Debian package that carries it.

    Raises:
      Unavailable: one is missing and cannot be installed; the message is the command.
    """
    _require({package for program, package in programs.items() if not _found(program)})


def require_packages(packages: Iterable[str]) -> None:
    """Make sure that each Debian package is installed.

    Raises:
      Unavailable: one is missing and cannot be installed; the message is the command.
    """
    _require({package for package in packages if not installed(package)})


def _require(packages: set[str]) -> None:
    if not packages:
        return
    missing = sorted(packages)
    command = f"apt-get install --no-install-recommends {' '.join(missing)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Unavailable(f"needs root and: {command}")
    try:
        _install(missing)
    except TargetFailed as error:
        raise Unavailable(f"{command} failed: {error}") from None


def require_root() -> None:
    """Peers need mounts and a network namespace.

    Raises:
      Unavailable: not root, or no /dev/fuse.
    """
    if os.geteuid() != 0:
        raise Unavailable("needs root (network namespace, mounts)")
    if not os.path.exists("/dev/fuse"):
        raise Unavailable("needs /dev/fuse")


def version_of(package: str) -> str:
    """Installed version of a Debian package."""
    return run("dpkg-query", "-W", "-f", "${Version}", package)


def installed(package: str) -> bool:
    """Whether a Debian package is; False where there are none."""
    try:
        return run("dpkg-query", "-W", "-f", "${db:Status-Status}", package) == "installed"
    except TargetFailed:
        return False


def _found(program: str) -> bool:
    return shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is not None


def _install(packages: list[str]) -> None:
    """Install without letting Debian start the services: the bench runs its own."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    ours = not os.path.exists(POLICY)
    if ours:
        with open(POLICY, "w") as file:
            file.write("#!/bin/sh\nexit 101\n")
        os.chmod(POLICY, 0o755)
    try:
        install = ("apt-get", "-q", "install", "-y", "--no-install-recommends", *packages)
        try:
            run(*install, limit_s=INSTALL_LIMIT_S, environment=environment)
        except TargetFailed:  # perhaps only because the lists are old or absent
            run("apt-get", "-q", "update", limit_s=INSTALL_LIMIT_S, environment=environment)
            run(*install, limit_s=INSTALL_LIMIT_S, environment=environment)
    finally:
        if ours:
            os.unlink(POLICY)
