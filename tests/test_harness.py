"""What the test harness promises, tried on runs of its own.

Each test writes a small test file and runs pytest on it in a process of its own with
the harness's conftest, so that a check that went blind would be seen here.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gfs.cluster.processes import Process, Registry, boot_id, start_time
from tests import skips
from tests.system.clusters import GFS, LocalCluster, forked_gfs
from tests.system.faults.processes import FaultyCluster

ROOT = Path(__file__).parent.parent
Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.slow


def impatient(source: str) -> str:
    """The harness with short periods of grace, so that its tests are quick."""
    return source.replace("TIMEOUT_GRACE_S = 20", "TIMEOUT_GRACE_S = 1").replace(
        "LEFTOVER_GRACE_S = 3", "LEFTOVER_GRACE_S = 0.2"
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run(source, *arguments)` runs pytest on `source` under a copy of the harness."""
    inner = tmp_path / "run"
    (inner / "tests").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", inner)
    for name in ("__init__", "conftest", "leftovers", "logcheck", "parallel", "skips"):
        source = (ROOT / "tests" / f"{name}.py").read_text()
        (inner / "tests" / f"{name}.py").write_text(impatient(source))

    def start(source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        (inner / "tests" / "test_inner.py").write_text(source)
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", *arguments],
            cwd=inner,
            env={**os.environ, "PYTEST_DEBUG_TEMPROOT": str(tmp_path), "PYTEST_ADDOPTS": ""},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return start


def is_running(pid: str) -> bool:
    """False also for a zombie, whose command line is empty."""
    path = Path("/proc", pid, "cmdline")
    return path.exists() and path.read_bytes() != b""


def test_unannounced_warning_fails_and_announced_one_passes(run: Run) -> None:
    result = run(
        "import logging\n"
        "log = logging.getLogger('gfs.x')\n"
        "def test_bad(): log.warning('lease.lost handle=%d', 7)\n"
        "async def test_bad_in_trio(): log.error('data at risk')\n"
        "def test_good(expect_log):\n"
        "    expect_log(r'^lease[.]lost', times=1)\n"
        "    log.warning('lease.lost handle=%d', 7)\n"
        "def test_never_came(expect_log): expect_log('never')\n"
        "def test_info(): log.info('fine')\n"
    )
    assert result.returncode == 1
    assert "unannounced WARNING of gfs.x: lease.lost handle=7" in result.stdout
    assert "unannounced ERROR of gfs.x: data at risk" in result.stdout
    assert "announced at least once, seen 0 times: 'never'" in result.stdout
    assert "3 failed, 2 passed" in result.stdout


def test_run_ends_with_skips_and_report_names_their_markers(run: Run, tmp_path: Path) -> None:
    report = tmp_path / "skips.json"
    result = run(
        "import pytest\n"
        "@pytest.mark.kill\n"
        "def test_a(): pytest.skip('no signal here')\n"
        "def test_b(): pytest.skip('no signal here')\n"
        "@pytest.mark.xfail(strict=True)\n"
        "def test_c(): assert False\n"
        "def test_d(): pass\n",
        f"--skip-report={report}",
    )
    assert result.returncode == 0
    assert result.stdout.endswith("2 skipped\n  2 x no signal here\n")
    facts = json.loads(report.read_text())
    assert facts["ran"] == 2
    assert [skip["markers"] for skip in facts["skipped"]] == [["kill"], []]


def test_ci_refuses_skip_of_kill_test_and_of_whole_module(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "skips.json"

    def verdict(*markers: str) -> int:
        skip = skips.Skip("tests/test_x.py::test_a", "because", list(markers))._asdict()
        report.write_text(json.dumps({"ran": 1, "skipped": [skip]}))
        return skips.main(str(report))

    assert verdict("slow", "netns") == 0
    assert capsys.readouterr().out == ""
    for marker in ("mount", "kill", "power_loss", "module"):
        assert verdict("slow", marker) == 1
        assert f"test_a (slow, {marker}): because" in capsys.readouterr().out


def test_process_left_behind_fails_run_and_is_ended(run: Run, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    result = run(
        "import subprocess\n"
        "def test_a():\n"
        "    child = subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
        f"    open({str(pid_file)!r}, 'w').write(str(child.pid))\n"
        "    child.returncode = 0\n"
    )
    assert result.returncode == 1
    assert "left behind by the tests" in result.stdout
    assert f"process {pid_file.read_text()}: sleep 300" in result.stdout
    assert not is_running(pid_file.read_text())


@pytest.mark.mount
def test_mount_left_behind_fails_run_and_is_detached(run: Run, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    result = run(
        "import subprocess\n"
        "def test_a(tmp_path):\n"
        "    subprocess.run(['mount', '-t', 'tmpfs', 'none', tmp_path], check=True)\n"
        "    assert False, 'the directory is kept'\n"
    )
    assert result.returncode == 1
    assert "mount /" in result.stdout
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.mount
def test_call_stuck_on_hung_mount_is_freed(run: Run, tmp_path: Path) -> None:
    server = tmp_path / "server.py"
    server.write_text(
        "import sys, pyfuse3, trio\n"
        "class Hung(pyfuse3.Operations):\n"
        "    async def getattr(self, inode, ctx=None):\n"
        "        await trio.sleep_forever()\n"
        "pyfuse3.init(Hung(), sys.argv[1], {'fsname=hung'})\n"
        "print('up', flush=True)\n"
        "trio.run(pyfuse3.main)\n"
    )
    result = run(
        "import os, subprocess, sys, pytest\n"
        "@pytest.mark.mount\n"
        "@pytest.mark.timeout(2)\n"
        "def test_a(tmp_path):\n"
        f"    server = [sys.executable, {str(server)!r}, tmp_path]\n"
        "    with subprocess.Popen(server, stdout=subprocess.PIPE) as child:\n"
        "        assert child.stdout.readline() == b'up\\n'\n"
        "        os.stat(tmp_path)\n"
    )
    assert "stuck in the kernel: ending the daemons" in result.stdout
    assert result.returncode == 1
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_workers_skips_and_leftovers_are_told_once_by_the_run(run: Run, tmp_path: Path) -> None:
    report = tmp_path / "skips.json"
    module = tmp_path / "run" / "tests" / "test_module.py"
    module.write_text("import pytest\npytest.skip('not here', allow_module_level=True)\n")
    result = run(
        "import subprocess, pytest\n"
        "@pytest.mark.kill\n"
        "def test_a(): pytest.skip('no signal here')\n"
        "def test_b(): pass\n"
        "def test_c():\n"
        "    child = subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
        "    child.returncode = 0\n",
        *("-n", "2", "--dist", "load", f"--skip-report={report}"),
    )
    assert result.returncode == 1
    assert result.stdout.count(": sleep 300") == 1
    assert "2 passed, 2 skipped" in result.stdout
    assert result.stdout.endswith("2 skipped\n  1 x no signal here\n  1 x not here\n")
    facts = json.loads(report.read_text())
    assert facts["ran"] == 2
    assert sorted(skip["markers"] for skip in facts["skipped"]) == [["kill"], ["module"]]


def test_what_a_crashed_worker_leaves_behind_is_ended(run: Run, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    result = run(
        "import os, subprocess\n"
        "def test_a():\n"
        "    child = subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
        f"    open({str(pid_file)!r}, 'w').write(str(child.pid))\n"
        "    os._exit(1)\n",
        *("-n", "1"),
    )
    assert result.returncode == 1
    assert f"process {pid_file.read_text()}: sleep 300" in result.stdout
    assert not is_running(pid_file.read_text())


@pytest.mark.kill
def test_a_daemon_is_killed_when_what_it_has_started_is_gone(tmp_path: Path) -> None:
    """Its child hears of the end by a pipe, and writes a last file a while later."""
    last = tmp_path / "last"
    child = f"import os, time; os.read(0, 1); time.sleep(0.3); open({str(last)!r}, 'w')"
    parent = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}], stdin=subprocess.PIPE)\n"
        f"open({str(tmp_path / 'begun')!r}, 'w')\n"
        "time.sleep(300)\n"
    )
    cluster = FaultyCluster(tmp_path)
    with subprocess.Popen([sys.executable, "-c", parent], start_new_session=True) as daemon:
        started = start_time(daemon.pid)
        assert started is not None
        Registry(cluster.layout).put(Process("daemon", daemon.pid, started, boot_id()))
        cluster.wait("no child", (tmp_path / "begun").exists)
        cluster.kill("daemon")
    assert last.exists()


def test_no_test_runs_beside_one_that_is_alone(run: Run, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    result = run(
        "import os, time, pytest\n"
        "@pytest.mark.parametrize('number', [\n"
        "    pytest.param(n, marks=[pytest.mark.alone] if n in (5, 6) else []) for n in range(12)\n"
        "])\n"
        "def test_a(number):\n"
        f"    fd = os.open({str(diary)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n"
        "    for what in ('begins', 'ends'):\n"
        "        os.write(fd, f'{number} {what}\\n'.encode())\n"
        "        time.sleep(0.05)\n"
        "    os.close(fd)\n",
        *("-n", "2", "--dist", "load"),
    )
    assert result.returncode == 0
    lines = diary.read_text().splitlines()
    for number in (5, 6):
        at = lines.index(f"{number} begins")
        assert lines[at + 1] == f"{number} ends"
        assert sum(line.endswith("ends") for line in lines[:at]) == at / 2  # nothing goes on


def test_a_forked_command_says_what_a_started_one_says(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path / os.fsdecode(b"caf\xe9"))
    for words in (["version"], ["nonsense"], ["--cluster", cluster.directory, "ls", b"/\xff"]):
        started, forked = (
            subprocess.run(
                [*start, *words], capture_output=True, cwd=tmp_path, env=cluster.variables(),
                stdin=subprocess.DEVNULL, timeout=60, check=False,
            )
            for start in (GFS, forked_gfs())
        )  # fmt: skip
        assert forked.returncode == started.returncode
        assert (forked.stdout, forked.stderr) == (started.stdout, started.stderr)


@pytest.mark.kill
def test_a_forked_command_ends_with_the_one_that_asked_for_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        words = ["--cluster", f"gfs://127.0.0.1:{port}", "ls", "/"]
        with subprocess.Popen([*forked_gfs(), *words]) as asker:
            peer, _ = silent.accept()
            asker.kill()
        with peer:
            peer.settimeout(30)
            while peer.recv(4096):
                pass
