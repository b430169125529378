"""The command `gfs`: which words there are, and how errors become lines and exit codes.

A mistake of the caller is one line on stderr and exit code 2, a failure one line and 1.
Commands are imported when they are called: most of them do not need what the others
need, and a command that starts in a tenth of a second is one people use in loops.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from gfs.cli.output import CommandFailed, complain, flush, out
from gfs.errors import GfsError, UsageError

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_PIPE = 1, 2, 130, 141

# Heading -> (name, where the command is, one line about it).
COMMANDS: dict[str, list[tuple[str, str, str]]] = {
    "A cluster on this host": [
        ("cluster", "gfs.cli.cluster:cluster", "Start, stop and inspect a local cluster"),
        ("status", "gfs.cli.status:status", "Servers, chunks, views and their lag"),
        ("fsck", "gfs.cli.status:fsck", "Compare namespace, chunks, replicas and checksums"),
    ],
    "Files": [
        ("ls", "gfs.cli.names:ls", "List a directory"),
        ("stat", "gfs.cli.names:stat", "Attributes; --chunks shows where the bytes lie"),
        ("cat", "gfs.cli.files:cat", "Files to standard output"),
        ("put", "gfs.cli.files:put", "Copy a local file in"),
        ("get", "gfs.cli.files:get", "Copy a file out"),
        ("append", "gfs.cli.files:append", "Record append from a file or standard input"),
        ("lock", "gfs.cli.lock:lock", "Run a command while holding a lock of the cluster"),
        ("mkdir", "gfs.cli.names:mkdir", "Make directories"),
        ("rm", "gfs.cli.names:rm", "Remove files, or trees with -r, into the trash"),
        ("snapshot", "gfs.cli.copies:snapshot", "Copy a tree at once, sharing its content"),
        ("clone", "gfs.cli.copies:clone", "Copy one file at once, sharing its content"),
        ("quota", "gfs.cli.quota:quota", "Limits on bytes and files below a directory"),
        ("trash", "gfs.cli.trash:trash", "List or empty the trash"),
        ("undelete", "gfs.cli.trash:undelete", "Bring back what was removed"),
    ],
    "Questions": [
        ("find", "gfs.cli.find:find", "find(1)'s words, answered by the search view"),
        ("search", "gfs.cli.search:search", "Names and attributes that fit, a page at a time"),
        ("du", "gfs.cli.usage:du", "What trees take, at once: du(1)'s words"),
        (
            "report",
            "gfs.cli.report:report",
            "Largest, cold, growth, ages, who deleted what",
        ),
        ("history", "gfs.cli.history:history", "What happened to a file, also one that is gone"),
        ("sql", "gfs.cli.queries:sql", "Read-only SQL over the metadata"),
        ("export", "gfs.cli.export:export", "All metadata as a Parquet file"),
        ("stream", "gfs.cli.stream:stream", "Every change of the metadata, as it happens"),
    ],
    "A mount on this host": [
        ("trace", "gfs.cli.watching:trace", "A line for each request that a mount is asked"),
        ("mount-stats", "gfs.cli.watching:mount_stats", "Rates and times of a mount, live"),
    ],
    "Programs": [
        ("master", "gfs.cli.programs:master", "Run a master, or a shadow; promote a shadow"),
        ("chunkd", "gfs.cli.programs:chunkd", "Run a chunk server; `gfs chunkd drain` empties one"),
        ("mount", "gfs.cli.programs:mount", "Mount a cluster on a directory"),
        ("mount-helper", "gfs.cli.mounting:mount_helper", "What mount(8) and fstab run to mount"),
        ("projections", "gfs.cli.programs:projections", "Keep views of the metadata"),
        ("systemd", "gfs.cli.systemd:systemd", "Print or install units for systemd"),
        ("config", "gfs.cli.settings:config", "Show settings and where each comes from"),
        ("version", "gfs.cli.settings:version", "Show the version"),
    ],
}
_PLACES = {name: place for group in COMMANDS.values() for name, place, _ in group}


class _Commands(click.Group):
    """Commands by heading, each imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_PLACES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = _PLACES.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        found: click.Command = getattr(importlib.import_module(module), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, _PLACES)) + 2
        for heading, rows in COMMANDS.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), line) for name, _, line in rows])


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from gfs.cli.settings import version_line

        out(version_line())
        context.exit()


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="A path below a mountpoint means the file there; inside a mount a relative path starts "
    "where one stands; otherwise / is the root of the filesystem.",
)
@click.option(
    "--cluster",
    metavar="DIR-or-URL",
    help="Which cluster: the directory of `gfs cluster up`, or gfs://HOST:PORT of a master.  "
    "Default: $GFS_CLUSTER, else the mount one stands in.",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version and exit.",
)
@click.pass_context
def gfs(context: click.Context, cluster: str | None) -> None:
    """A Google File System: mount it, append to it, ask it questions."""
    context.obj = cluster


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; ends the process with the command's exit code."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit code; errors become one line on stderr."""
    try:
        # Not `gfs.main`: click would turn a closed pipe into a failure.
        with gfs.make_context("gfs", list(argv)) as context:
            code = gfs.invoke(context)
        flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except BaseException as error:
        return _report(_innermost(error))


def _report(error: BaseException) -> int:
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return EXIT_INTERRUPTED
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has gone; Python must not try to flush it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else EXIT_FAILED
    if isinstance(error, click.ClickException):
        usage = isinstance(error, click.UsageError)
        complain(error.format_message())
        return EXIT_USAGE if usage else EXIT_FAILED
    if isinstance(error, UsageError):
        complain(str(error))
        return EXIT_USAGE
    if isinstance(error, GfsError | CommandFailed):
        complain(str(error) or getattr(error, "code", ""))
        return EXIT_FAILED
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
        complain(f"{where}{error.strerror or error}")
        return EXIT_FAILED
    raise error


def _innermost(error: BaseException) -> BaseException:
    """The one error within trio's groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    main()
