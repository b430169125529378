"""`gfs export FILE.parquet [PATH]`: every inode with its path, as of one position, as Parquet.

The analytics view sends rows, and the file is made here: the service opens no file that
a caller names. Rows go through pipes into DuckDB, which makes Parquet files of so many
each (it keeps all that it read of a pipe) and then one of them, row group by row group:
memory stays small however many files there are. The file gets its name when it is whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import click
import httpx
import msgspec

from gfs.changes import bytes_of
from gfs.cli.finding import reach
from gfs.cli.output import CommandFailed, counting, flush, out, remark, shown
from gfs.cli.queries import answer, asked_path, print_standing, question
from gfs.errors import UsageError

MEMORY_MIB = 512
PART_ROWS = 200_000  # about 150 MiB while they are written
# What the view sends -> how it stands in the file; `path_bytes` only where `path` is not all.
SENT = {
    "path": "VARCHAR", "path_hex": "VARCHAR", "ino": "BIGINT", "parent": "BIGINT",
    "name": "VARCHAR", "extension": "VARCHAR", "kind": "VARCHAR", "permissions": "INTEGER",
    "uid": "BIGINT", "gid": "BIGINT", "nlink": "BIGINT", "size": "BIGINT",
    "disk_bytes": "BIGINT", "atime_ns": "BIGINT", "mtime_ns": "BIGINT", "ctime_ns": "BIGINT",
    "created_ns": "BIGINT", "target": "VARCHAR",
}  # fmt: skip
_MADE = {"path_hex": "unhex(path_hex) AS path_bytes"} | {
    f"{name}_ns": f"make_timestamp_ns({name}_ns) AS {name}"
    for name in ("atime", "mtime", "ctime", "created")
}
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "threads": "2",
    "memory_limit": f"{MEMORY_MIB}MiB",
    "preserve_insertion_order": "false",  # else rows wait for those before them
    "temp_directory": "",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
_ESCAPED = b"\xf4\x8f"  # begins what stands for a byte that is not UTF-8 (docs/stream.md)
_END = b'{"kind":"end"'
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL


@click.command()
@question
@click.argument("file", type=click.Path(path_type=bytes))
@click.argument("path", required=False, type=click.Path(path_type=bytes))
@click.option("-f", "--force", is_flag=True, help="Replace FILE if it is there.")
@click.pass_context
def export(
    context: click.Context,
    file: bytes,
    path: bytes | None,
    force: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Write all metadata, or those of the tree at PATH, to the Parquet file FILE (- is stdout).

    A row is an inode, with its path. The position and epoch that it is true for stand in
    the file's metadata.
    """
    place = reach(context.obj, [path] if path else [])
    asked: dict[str, str | int] = {} if path is None else {"path": asked_path(place, path)}
    name = "standard output" if file == b"-" else shown(file)
    with (
        _whole(file, force=force) as target,
        answer(place, "analytics", "/export", asked, wait=wait) as response,
    ):
        directory = None if file == b"-" else os.path.dirname(os.path.abspath(file))
        head, rows = write_parquet(response.iter_bytes(), target, name, directory)
    if as_json:
        said = json.dumps({**head, "rows": rows, "file": name})
        (remark if file == b"-" else out)(said)
        return
    remark(f"{rows} inodes to {name}")
    print_standing(head)


@contextlib.contextmanager
def _whole(file: bytes, *, force: bool) -> Iterator[int]:
    """A descriptor whose content gets the name `file` when all is well, and else is dropped.

    Raises: UsageError, CommandFailed.
    """
    if file == b"-":
        if sys.stdout.isatty():
            raise UsageError("a Parquet file on a terminal? Give a FILE, or a pipe")
        flush()
        yield sys.stdout.fileno()
        return
    if os.path.isdir(file):
        raise UsageError(f"{shown(file)} is a directory")
    if not force and os.path.lexists(file):
        raise UsageError(f"{shown(file)} is there already; --force replaces it")
    directory, base = os.path.split(file)
    part = os.path.join(directory, b".%s.%s" % (base[:200], secrets.token_hex(4).encode()))
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:
        raise CommandFailed(f"{shown(file)}: {error.strerror}") from None
    try:
        yield descriptor
        os.fsync(descriptor)
        os.rename(part, file)
    except OSError as error:
        raise CommandFailed(f"{shown(file)}: {error.strerror}") from None
    finally:
        os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)


class _Feed:
    """Lines of the service on their way into pipes, each in a thread of its own."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = _lines(blocks)
        first = next(self._blocks, b"")
        line, _, self._rest = first.partition(b"\n")
        self.head: dict[str, Any] = _decoded(line, "export")
        self.rows = 0
        self.told: int | None = None  # rows that the service says there were
        self.over = False
        self.error: str = ""
        self.show: Callable[[int], None] = lambda count: None

    def part(self, writer: int) -> None:
        """Write the next lines, about `PART_ROWS`, to `writer`, and close it."""
        enough = self.rows + PART_ROWS
        try:
            with os.fdopen(writer, "wb", buffering=0) as pipe:
                rest, self._rest = self._rest, b""
                self._pass(rest, pipe)
                for block in self._blocks:
                    self._pass(block, pipe)
                    if self.rows >= enough:
                        return
                self.over = True
        except BrokenPipeError:  # nobody reads: that is told at the other end
            self.over = True
        except (httpx.HTTPError, OSError, CommandFailed) as error:
            self.error, self.over = str(error) or type(error).__name__, True

    def _pass(self, block: bytes, pipe: Any) -> None:
        at = block.rfind(_END)
        if at >= 0 and (at == 0 or block[at - 1 : at] == b"\n"):
            self.told = int(_decoded(block[at:], "end")["rows"])
            block = block[:at]
        count = block.count(b"\n")
        if _ESCAPED in block:
            block = b"".join(map(_with_bytes, block.splitlines(keepends=True)))
        view = memoryview(block)
        while view:
            view = view[pipe.write(view) :]
        self.rows += count
        self.show(count)


def _lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in blocks of whole lines."""
    rest = b""
    for block in blocks:
        rest += block
        cut = rest.rfind(b"\n") + 1
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
    if rest:
        yield rest


def _decoded(line: bytes, kind: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.MsgspecError:
        found = {}
    if found.get("kind") != kind:
        raise CommandFailed("the analytics view sends no export; is it of this release?")
    return {name: value for name, value in found.items() if name != "kind"}


def _with_bytes(line: bytes) -> bytes:
    """A row with the path's own bytes as well, if its text only stands for them."""
    row: dict[str, Any] = msgspec.json.decode(line)
    raw = bytes_of(row["path"])
    if raw == row["path"].encode():
        return line
    return msgspec.json.encode({**row, "path_hex": raw.hex()}) + b"\n"


def write_parquet(
    blocks: Iterator[bytes], target: int, name: str, directory: bytes | None
) -> tuple[dict[str, Any], int]:
    """Rows of an export into the open file `target`; by way of parts in `directory`.

    Returns: what the service says of them, and how many they are.
    Raises: CommandFailed.
    """
    import duckdb  # takes long

    feed = _Feed(blocks)
    total = feed.head["inodes"] if feed.head["path"] is None else None
    try:
        with (
            tempfile.TemporaryDirectory(dir=directory, prefix=b".gfs-export-") as scratch,
            _open(scratch) as parts,
            counting("inodes", total) as feed.show,
        ):
            number = 0
            while not feed.over:
                _write_part(feed, os.open(b"%d" % number, _NEW, 0o600, dir_fd=parts))
                number += 1
            if feed.error or feed.told != feed.rows:
                why = feed.error or "the view ended it"
                raise CommandFailed(f"the export was cut short: {why}")
            files = [f"/dev/fd/{parts}/{one}" for one in range(number)]
            with duckdb.connect(config=_SETTINGS) as database:
                database.execute(_copy(f"read_parquet({files})", "*", target, feed.head))
    except duckdb.Error as error:
        raise CommandFailed(f"{name}: {str(error).splitlines()[0]}") from None
    except OSError as error:
        raise CommandFailed(f"{name}: {error.strerror}") from None
    return feed.head, feed.rows


@contextlib.contextmanager
def _open(directory: bytes) -> Iterator[int]:
    """A descriptor of a directory: its path may be none that DuckDB takes."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_part(feed: _Feed, target: int) -> None:
    """The next rows as a Parquet file."""
    import duckdb

    reader, writer = os.pipe()
    thread = threading.Thread(target=feed.part, args=(writer,), daemon=True)
    thread.start()
    columns = ", ".join(f"'{column}': '{kind}'" for column, kind in SENT.items())
    source = (
        f"read_json('/dev/fd/{reader}', format = 'newline_delimited', compression = 'none',"
        f" columns = {{{columns}}})"
    )
    made = ", ".join(_MADE.get(column, column) for column in SENT)
    try:
        with duckdb.connect(config=_SETTINGS) as database:
            database.execute(_copy(source, made, target, {}))
    finally:
        os.close(reader)
        os.close(target)
        thread.join()


def _copy(source: str, columns: str, target: int, head: dict[str, Any]) -> str:
    facts = {f"gfs_{key}": head[key] for key in ("cursor", "position", "epoch") if key in head}
    facts["gfs_path"] = head.get("path") or ""
    told = ", ".join(f"{key}: '{_quoted(value)}'" for key, value in facts.items())
    return (
        f"COPY (SELECT {columns} FROM {source}) TO '/dev/fd/{target}'"
        f" (FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false, KV_METADATA {{{told}}})"
    )


def _quoted(value: object) -> str:
    return str(value).replace("'", "''")
