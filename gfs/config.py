"""Where every setting comes from: defaults < TOML file < environment < flags.

    config, origins = load("chunkd", sys.argv[1:])

The file is named by ``--config`` or ``GFS_CONFIG``; its tables are the sections of
gfs.sections. A variable is ``GFS_<SECTION>_<KEY>``. Each value knows its origin, and
what is unknown or of the wrong type is refused by name: a setting that is silently
ignored is worse than none. Sizes (``..._bytes``) may be written ``64MiB``; lists are
separated by ``:`` in the environment and given by repeated flags.
"""

from __future__ import annotations

import os
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Literal, overload

import click
import msgspec

from gfs.errors import UsageError
from gfs.sections import (
    POSITIONAL,
    SECTIONS,
    SHARED,
    SHORT,
    ChunkdConfig,
    ClientConfig,
    ClusterConfig,
    MasterConfig,
    MountConfig,
    ProjectionsConfig,
)

__all__ = [
    "ChunkdConfig",
    "ClientConfig",
    "ClusterConfig",
    "MasterConfig",
    "MountConfig",
    "Origins",
    "ProjectionsConfig",
    "daemon_flags",
    "flag_of",
    "load",
    "load_section",
]

Origins = dict[str, str]  # field -> "default", "FILE [section]", "$VARIABLE", "--flag"
LOCAL = "local"  # section of a local cluster's own file; gfs.cluster.layout reads it
_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"\s*(\d+)\s*([kmgt]?)(?:i?b)?\s*", re.IGNORECASE)


@overload
def load(section: Literal["master"], argv: Sequence[str]) -> tuple[MasterConfig, Origins]: ...
@overload
def load(section: Literal["chunkd"], argv: Sequence[str]) -> tuple[ChunkdConfig, Origins]: ...
@overload
def load(section: Literal["mount"], argv: Sequence[str]) -> tuple[MountConfig, Origins]: ...
@overload
def load(
    section: Literal["projections"], argv: Sequence[str]
) -> tuple[ProjectionsConfig, Origins]: ...
@overload
def load(section: Literal["client"], argv: Sequence[str]) -> tuple[ClientConfig, Origins]: ...
def load(section: str, argv: Sequence[str]) -> tuple[ClusterConfig, Origins]:
    """Configuration of one daemon from its command line and everything below it.

    ``--help`` prints the flags and ends the process.

    Raises:
      UsageError: an unknown key, flag or variable, or a value of the wrong type;
        the text names where it stands.
    """
    given = _parse(section, argv)
    file = given.pop("config", None)
    return load_section(section, file=typing.cast("str | None", file), flags=given)


def load_section(
    section: str,
    *,
    file: str | Path | None = None,
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[ClusterConfig, Origins]:
    """`load` with the sources given apart; `flags` by field name, None = not given.

    Raises:
      UsageError: as `load`.
    """
    environment = os.environ if environment is None else environment
    _refuse_unknown_variables(environment)
    kind = SECTIONS[section]
    values: dict[str, object] = {}
    origins = dict.fromkeys(kind.__struct_fields__, "default")
    path = file or environment.get("GFS_CONFIG")
    sources = [
        *(_from_file(section, Path(path)) if path else ()),
        *_from_environment(section, environment),
        *_from_flags(section, flags or {}),
    ]
    types = field_types(section)
    for name, value, origin in sources:
        values[name] = convert(value, types[name], name, origin)
        origins[name] = origin
    return msgspec.convert(values, kind), origins


def daemon_flags(section: str) -> list[click.Parameter]:
    """The command line of a daemon, one flag a field, from its struct."""
    kind = SECTIONS[section]
    parameters: list[click.Parameter] = [
        click.Option(["--config"], metavar="FILE", help="TOML file; sections as `gfs config show`")
    ]
    for name, annotation in field_types(section).items():
        if POSITIONAL.get(section) == name:
            parameters.insert(0, click.Argument([name], required=False))
            continue
        parameters.append(_option(name, annotation, _default(kind, name)))
    return parameters


def field_types(section: str) -> dict[str, object]:
    """Field -> annotation, with msgspec's limits and description in it."""
    kind = SECTIONS[section]
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name: hints[name] for name in kind.__struct_fields__}


def description(annotation: object) -> str:
    """The line about a field."""
    for extra in getattr(annotation, "__metadata__", ()):
        if isinstance(extra, msgspec.Meta) and extra.description:
            return extra.description
    return ""


def variable_of(section: str, name: str) -> str:
    """Environment variable of a field."""
    key = SHARED.get(name)
    return f"GFS_CLUSTER_{key.upper()}" if key else f"GFS_{section}_{name}".upper()


def flag_of(name: str) -> str:
    """Flag of a field."""
    return "--" + name.replace("_", "-")


# --- sources -------------------------------------------------------------------------

Found = Iterator[tuple[str, object, str]]


def _from_file(section: str, path: Path) -> Found:
    tables = _read(path)
    tables.pop(LOCAL, None)
    for table, content in tables.items():
        if table not in SECTIONS:
            known = ", ".join(SECTIONS)
            raise UsageError(f"{path}: unknown section [{table}] (there are {known})")
        if not isinstance(content, dict):
            raise UsageError(f"{path}: {table} is a section, not a value")
        for key in content.keys() - _keys(table).keys():
            raise UsageError(f"{path}: unknown key {key} in [{table}]")
    for table in dict.fromkeys(("cluster", section)):
        keys = _keys(table)
        for key, value in tables.get(table, {}).items():
            yield keys[key], value, f"{path} [{table}] {key}"


def _keys(section: str) -> dict[str, str]:
    """Key in the file -> field."""
    if section == "cluster":
        return {key: name for name, key in SHARED.items()}
    return {name: name for name in SECTIONS[section].__struct_fields__ if name not in SHARED}


def _read(path: Path) -> dict[str, dict[str, object]]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None


def _from_environment(section: str, environment: Mapping[str, str]) -> Found:
    for name, annotation in field_types(section).items():
        variable = variable_of(section, name)
        text = environment.get(variable)
        if text is not None:
            value = text.split(":") if _plain(annotation) == list[str] else text
            yield name, value, f"${variable}"


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    for variable in environment:
        for section in SECTIONS:
            if variable.startswith(f"GFS_{section.upper()}_"):
                fields = SHARED if section == "cluster" else _keys(section)
                if variable not in {variable_of(section, name) for name in fields}:
                    raise UsageError(f"${variable} names no setting of section {section}")


def _from_flags(section: str, flags: Mapping[str, object]) -> Found:
    for name, value in flags.items():
        if value is not None and value != ():
            given = list(value) if isinstance(value, tuple) else value
            where = name.upper() if POSITIONAL.get(section) == name else flag_of(name)
            yield name, given, where


def _parse(section: str, argv: Sequence[str]) -> dict[str, object]:
    command = click.Command(
        section,
        params=daemon_flags(section),
        help=(SECTIONS[section].__doc__ or "").split(";")[0],
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    try:
        with command.make_context(f"gfs {section}", list(argv)) as context:
            return dict(context.params)
    except click.exceptions.Exit as done:  # --help
        raise SystemExit(done.exit_code) from None
    except click.ClickException as error:
        raise UsageError(error.format_message()) from None


# --- values --------------------------------------------------------------------------


def _plain(annotation: object) -> object:
    """The annotation without msgspec's limits."""
    if typing.get_origin(annotation) is typing.Annotated:
        return typing.get_args(annotation)[0]
    return annotation


def convert(value: object, annotation: object, name: str, origin: str) -> object:
    """The value of a field of this type, which text may stand for.

    Raises:
      UsageError: it is none; the text names `origin`.
    """
    if name.endswith("_bytes") and isinstance(value, str):
        value = _size(value, name, origin)
    try:
        # Text from variables and flags may stand for a number; TOML has types of its own.
        return msgspec.convert(value, annotation, strict=not isinstance(value, str))
    except msgspec.ValidationError as error:
        reason = str(error).partition(" - at ")[0]
        raise UsageError(f"{origin}: {name} = {value!r}: {reason[0].lower()}{reason[1:]}") from None


def _size(text: str, name: str, origin: str) -> int:
    negative = text.startswith("-")
    match = _SIZE.fullmatch(text.removeprefix("-"))
    if match is None:
        raise UsageError(f"{origin}: {name} = {text!r} is no size such as 67108864 or 64MiB")
    size = int(match[1]) * _SIZES[match[2].lower()]
    return -size if negative else size


def _default(kind: type[msgspec.Struct], name: str) -> object:
    for field in msgspec.structs.fields(kind):
        if field.name == name:
            made = field.default_factory
            return field.default if made is msgspec.NODEFAULT else made()
    raise KeyError(name)


def _option(name: str, annotation: object, default: object) -> click.Option:
    plain = _plain(annotation)
    about = description(annotation)
    shown = f" [{_shown(name, default)}]" if default not in ("", None, []) else ""
    is_flag = plain is bool or (isinstance(plain, UnionType) and bool in typing.get_args(plain))
    if is_flag:
        flag = flag_of(name)
        names = [f"{flag}/--no-{flag[2:]}"]
        return click.Option(names, default=None, type=bool, help=about + shown)
    many = plain == list[str]
    metavar = _metavar(plain)
    short = [SHORT[name]] if name in SHORT else []
    return click.Option(
        [flag_of(name), *short], multiple=many, metavar=metavar, type=str, help=about + shown
    )


def _metavar(plain: object) -> str:
    if typing.get_origin(plain) is Literal:
        return "|".join(typing.get_args(plain))
    return {int: "N", float: "X"}.get(typing.cast("type", plain), "TEXT")


def _shown(name: str, default: object) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    if name.endswith("_bytes") and isinstance(default, int) and default > 0:
        for letter, size in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
            if default % size == 0:
                return f"{default // size} {letter}iB"
    return str(default)
