"""`gfs config show` and `gfs version`."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from pathlib import Path

import click
import msgspec

from gfs.cli.output import out
from gfs.config import load_section
from gfs.sections import SECTIONS, SHARED

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def config() -> None:
    """Settings: defaults < TOML file < environment < flags."""


@config.command()
@click.option("--section", type=click.Choice(list(SECTIONS)), help="Only this section.")
@click.option("--config", "file", type=_FILE, help="TOML file; default $GFS_CONFIG.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(section: str | None, file: Path | None, as_json: bool) -> None:
    """Print each setting, its value, and where the value comes from."""
    shown: dict[str, dict[str, dict[str, object]]] = {}
    for name in [section] if section else SECTIONS:
        values, origins = load_section(name, file=file)
        rows = msgspec.to_builtins(values)
        shown[name] = {
            SHARED.get(key, key) if name == "cluster" else key: {"value": value, "origin": origin}
            for (key, value), origin in zip(rows.items(), origins.values(), strict=True)
            if (key in SHARED) == (name == "cluster")
        }
    if as_json:
        out(json.dumps(shown))
        return
    for name, fields in shown.items():
        out(f"[{name}]")
        for key, field in fields.items():
            out(f"{key} = {json.dumps(field['value'])}  # {field['origin']}")
        out("")


def version_line() -> str:
    """What `gfs --version` prints."""
    return f"gfs {importlib.metadata.version('gfs')}, Python {platform.python_version()}"


@click.command()
def version() -> None:
    """Show the version of gfs, Python and the packages that matter."""
    out(version_line())
    for name in ("trio", "pyfuse3", "msgspec", "apsw", "duckdb"):
        try:
            out(f"  {name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            out(f"  {name} is not installed")
