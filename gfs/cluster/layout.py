"""What lies where in the directory of a local cluster, and the facts it remembers.

    DIR/cluster.toml   id, addresses and counts; also a configuration file for daemons
    DIR/config.toml    copy of the file given by --config, if any
    DIR/key            the cluster's key, mode 0600
    DIR/pids           lines "PID NAME"; DIR/processes.json knows start times as well
    DIR/data/NAME      data directories       DIR/log/NAME.log   logs
    DIR/ready/NAME     ready files            DIR/mnt1 ...       mountpoints
    DIR/run            Unix sockets, unless the path would be too long for them

Ports are chosen once and kept. The path of a Unix socket ends at 107 bytes
(unix(7)), so a deep DIR has its sockets in a short directory of its own.
"""

from __future__ import annotations

import os
import secrets
import socket
import stat
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from gfs.errors import UsageError
from gfs.handshake import create_key

SOCKET_PATH_BYTES_MAX = 107
LONGEST_SOCKET = "/run/shadow-stream.sock"
# Below the kernel's usual range for outgoing connections, which would take a free port.
PORTS = range(20_000, 32_000)
PORTS_GIVEN = "GFS_PORTS"  # environment: FIRST-LAST, where others are to be kept out of the way
PORT_TRIES = 200


class Facts(msgspec.Struct, kw_only=True):
    """What a local cluster remembers between starts."""

    id: str
    chunkservers: int = 3
    mounts: int = 1
    goal: int = 3
    projections: bool = True
    shadow: bool = False
    runtime_dir: str = ""
    addresses: dict[str, str] = msgspec.field(default_factory=dict)  # name -> HOST:PORT


class Layout:
    """Paths of one cluster directory."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(os.path.realpath(directory))
        self.toml = self.directory / "cluster.toml"
        self.config = self.directory / "config.toml"
        self.key = self.directory / "key"
        self.pids = self.directory / "pids"
        self.processes = self.directory / "processes.json"
        self.lock = self.directory / "lock"

    def log(self, name: str) -> Path:
        return self.directory / "log" / f"{name}.log"

    def data(self, name: str) -> Path:
        return self.directory / "data" / name

    def ready(self, name: str) -> Path:
        return self.directory / "ready" / name

    def mountpoint(self, number: int) -> Path:
        return self.directory / f"mnt{number}"

    def exists(self) -> bool:
        return self.toml.exists()

    def load(self) -> Facts:
        """The facts of an existing cluster.

        Raises:
          UsageError: there is no cluster here, or its file is damaged.
        """
        try:
            tables = tomllib.loads(self.toml.read_text())
            local = tables["local"]
            return msgspec.convert({"id": tables["cluster"]["id"], **local}, Facts)
        except FileNotFoundError:
            raise UsageError(
                f"no cluster in {self.directory}: gfs cluster up --dir {self.directory} makes one"
            ) from None
        except OSError as error:
            raise UsageError(f"cannot read {self.toml}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, KeyError, msgspec.ValidationError) as error:
            raise UsageError(f"{self.toml} is damaged: {error}") from None

    def create(self) -> Facts:
        """A new cluster: id, key, directories."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            create_key(self.key)
            for name in ("log", "data", "ready"):
                (self.directory / name).mkdir(exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make a cluster in {self.directory}: {error}") from None
        return Facts(id=secrets.token_hex(8))

    def save(self, facts: Facts) -> None:
        """Write the facts; the file serves as configuration of daemons and commands, too."""
        replace_file(self.toml, _toml(self._tables(facts)).encode())

    def socket(self, facts: Facts, name: str) -> str:
        """Path of a Unix socket."""
        return f"{facts.runtime_dir}/{name}.sock"

    def to_master(self, facts: Facts) -> dict[str, str]:
        """The settings that lead to the master, or to whichever of several is in charge."""
        names = ["master", *(["shadow"] if facts.shadow else [])]
        addresses = [facts.addresses.get(name, "") for name in names]
        sockets = [self.socket(facts, name) for name in names]
        return {"master": ",".join(addresses), "master_unix": ",".join(sockets)}

    def to_stream(self, facts: Facts) -> dict[str, str]:
        """The settings that lead to the change stream, as `to_master`."""
        names = ["stream", *(["shadow_stream"] if facts.shadow else [])]
        sockets = [self.socket(facts, name.replace("_", "-")) for name in names]
        urls = [_url(facts, name) for name in names]
        return {"stream": ",".join(urls), "stream_unix": ",".join(sockets)}

    def ensure_runtime_dir(self, facts: Facts) -> None:
        """Make, or check, the directory of the sockets; a stranger's is never used."""
        if facts.runtime_dir and _is_own_directory(facts.runtime_dir):
            return
        fits = len(os.fsencode(str(self.directory) + LONGEST_SOCKET)) <= SOCKET_PATH_BYTES_MAX
        if fits:
            facts.runtime_dir = str(self.directory / "run")
            Path(facts.runtime_dir).mkdir(exist_ok=True)
        else:
            base = os.environ.get("XDG_RUNTIME_DIR") or ""
            base = base if len(base) < 60 and os.access(base, os.W_OK) else "/tmp"
            facts.runtime_dir = tempfile.mkdtemp(prefix="gfs-", dir=base)
        # Others may pass to a socket they know; who may do what is decided there.
        os.chmod(facts.runtime_dir, 0o711)

    def _tables(self, facts: Facts) -> dict[str, dict[str, object]]:
        master, stream = self.to_master(facts), self.to_stream(facts)
        client: dict[str, object] = {**master, "master_http": _url(facts, "master_http"), **stream}
        if facts.projections:
            for view in ("search", "analytics"):
                client |= {view: _url(facts, view), f"{view}_unix": self.socket(facts, view)}
        local = msgspec.to_builtins(facts)
        del local["id"]
        return {
            "cluster": {
                "id": facts.id,
                "key_file": str(self.key),
                "dir": str(self.directory),
            },
            "chunkd": {**master},
            "mount": {**master},
            "projections": {**stream},
            "client": client,
            "local": local,
        }


def _url(facts: Facts, name: str) -> str:
    return f"http://{facts.addresses[name]}" if name in facts.addresses else ""


def _is_own_directory(path: str) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def replace_file(path: Path, content: bytes) -> None:
    """Write a small file whole or not at all."""
    fresh = path.with_name(path.name + ".new")
    with open(fresh, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


# --- ports ---------------------------------------------------------------------------


def is_free(address: str) -> bool:
    """Whether this address can be listened on now."""
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return False
        return True


def choose_address(taken: Iterable[str]) -> str:
    """A free loopback address that is not in `taken`; its port is one of $GFS_PORTS, if set.

    Nothing listens on it until the daemon does, so a cluster that is made at the same
    time may take it as well; one that is given other ports cannot.

    Raises:
      UsageError: no port is free, or $GFS_PORTS is not FIRST-LAST.
    """
    avoid, ports = set(taken), _ports()
    for _ in range(PORT_TRIES):
        address = f"127.0.0.1:{ports[secrets.randbelow(len(ports))]}"
        if address not in avoid and is_free(address):
            return address
    raise UsageError(f"no free port found from {ports.start} to {ports.stop - 1}")


def _ports() -> range:
    given = os.environ.get(PORTS_GIVEN)
    if given is None:
        return PORTS
    first, _, last = given.partition("-")
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) < 65_536):
        raise UsageError(f"${PORTS_GIVEN}: {given!r} is not FIRST-LAST, two ports")
    return range(int(first), int(last) + 1)


# --- TOML ----------------------------------------------------------------------------


def _toml(tables: Mapping[str, Mapping[str, object]]) -> str:
    lines = ["# Written by `gfs cluster up`.", ""]
    for name, table in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {_value(value)}" for key, value in table.items()]
        lines.append("")
    return "\n".join(lines)


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(part)}" for key, part in value.items()) + " }"
    # JSON's numbers, booleans and escaped strings are TOML's as well.
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
