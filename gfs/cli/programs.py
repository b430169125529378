"""`gfs master|chunkd|mount|projections`: become that program, with the same flags.

`gfs` knows nothing of the programs but their names. ``--cluster DIR`` stands for the
configuration file that a local cluster keeps in its directory. `gfs master promote`,
`gfs projections verify` and others are commands.
"""

from __future__ import annotations

import importlib
import os
import sys

import click

from gfs.cluster.layout import Layout
from gfs.cluster.processes import program_command
from gfs.errors import UsageError

_PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def _program(name: str, about: str) -> click.Command:
    @click.command(name=name, help=about, context_settings=_PASS_ON, add_help_option=False)
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    @click.pass_obj
    def command(cluster: str | None, words: tuple[str, ...]) -> None:
        become(name, with_cluster(list(words), cluster))

    return command


def with_cluster(words: list[str], cluster: str | None) -> list[str]:
    """The words with ``--cluster DIR`` replaced by ``--config DIR/cluster.toml``.

    Raises:
      UsageError: --cluster without a value, or no cluster there.
    """
    for at, word in enumerate(words):
        if word == "--cluster":
            if at + 1 == len(words):
                raise UsageError("--cluster needs the directory of a cluster")
            return with_cluster(words[:at] + words[at + 2 :], words[at + 1])
        if word.startswith("--cluster="):
            return with_cluster(words[:at] + words[at + 1 :], word.partition("=")[2])
    if cluster is None:
        return words
    layout = Layout(cluster)
    layout.load()
    return [f"--config={layout.toml}", *words]


def become(name: str, words: list[str]) -> None:
    """Replace this process by the program; does not return."""
    sys.stdout.flush()
    command, environment = program_command(name)
    os.execve(command[0], [*command, *words], environment)


class _ProgramWithCommands(click.Group):
    """A program, unless its first word is one of `places` (word -> module:command)."""

    def __init__(self, name: str, about: str, **places: str) -> None:
        super().__init__(name=name, help=about)
        self._places = places

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module, _, attribute = self._places[cmd_name].partition(":")
        found: click.Command = getattr(importlib.import_module(module), attribute)
        return found

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._places)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] in self._places:
            return super().parse_args(ctx, args)
        assert self.name is not None
        become(self.name, with_cluster(args, ctx.obj))
        return []


master = _ProgramWithCommands(
    "master",
    "Run a master, or a shadow; promote one.",
    promote="gfs.cli.promotion:promote",
    forget="gfs.cli.promotion:forget",
)
chunkd = _ProgramWithCommands(
    "chunkd", "Run a chunk server, or drain one.", drain="gfs.cli.drain:drain"
)
mount = _program("mount", "Mount a cluster on a directory.")
projections = _ProgramWithCommands(
    "projections",
    "Keep views of the metadata (with options alone, or `run`); ask about them, tell them.",
    run="gfs.cli.projections:run",
    list="gfs.cli.projections:list_views",
    status="gfs.cli.projections:status",
    rebuild="gfs.cli.projections:rebuild",
    pause="gfs.cli.projections:pause",
    resume="gfs.cli.projections:resume",
    verify="gfs.cli.projections:verify",
)
