"""Units of systemd: sound by systemd's own judgement; daemons tell it that they serve."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from gfs import readiness
from gfs.cli.main import run
from gfs.cluster.units import units

INSTANCES = {"gfs-mount@.service": "srv-data", "gfs-chunkd@.service": "a"}


def test_units_are_what_systemd_takes(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed (package systemd)")
    assert run(["systemd", "install", "--dir", str(tmp_path)]) == 0
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == sorted(units("/x"))
    found = [name.replace("@", f"@{INSTANCES.get(name, 'search')}") for name in names]
    done = subprocess.run(
        [analyze, "verify", *(str(tmp_path / name) for name in found)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_one_unit_is_printed_by_its_name(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["systemd", "print", "gfs-mount@"]) == 0
    printed = capfd.readouterr().out
    assert printed.count("[Service]") == 1
    assert " mount %f\n" in printed
    assert run(["systemd", "print", "gfs-mound"]) == 2
    assert "gfs-mount@.service" in capfd.readouterr().err


def test_a_percent_sign_in_the_path_is_no_specifier() -> None:
    for text in units("/opt/100%/gfs").values():
        assert 'ExecStart="/opt/100%%/gfs"' in text


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    name = f"@gfs-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0", 1))
        readiness.announce("")
        assert manager.recv(100) == b"READY=1"
    readiness.announce(str(tmp_path / "ready"))  # nobody listens any more
    assert (tmp_path / "ready").exists()


def test_mounts_end_before_what_they_write_to_and_start_on_what_was_killed() -> None:
    """The order of a stop is that of a start, reversed."""
    text = units("/x")
    for name in ("gfs-master.service", "gfs-chunkd@.service"):
        assert "Before=remote-fs-pre.target\n" in text[name]
    mount = text["gfs-mount@.service"]
    assert "After=network-online.target remote-fs-pre.target\n" in mount
    assert "ExecStartPre=-/bin/mkdir" in mount  # cannot stat a dead mount
