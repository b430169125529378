"""The words of ``-o``: what mount(8), fstab and systemd give a mount.

Some are settings of ours (``subtree=/x``; any of section [mount] by its name), some the
kernel's, some meant for mount(8) or systemd alone. What is none of these is refused by
its name: an option that is silently ignored may be the one that was to protect something.
"""

from __future__ import annotations

import re
from typing import Any

from msgspec.structs import replace

from gfs.config import convert, field_types
from gfs.errors import UsageError
from gfs.sections import MountConfig

# word -> (setting, value); None: the value of the word
_ALIASES: dict[str, tuple[str, object]] = {
    "ro": ("read_only", True),
    "rw": ("read_only", False),
    "key": ("key_file", None),
    "log": ("log_file", None),
    "anonuid": ("anon_uid", None),
    "anongid": ("anon_gid", None),
}
_KERNEL = {
    "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync", "noatime",
}  # fmt: skip
# Kept or done by mount(8), the init system and the kernel; there is nothing to do here.
_OTHERS = {
    "defaults", "auto", "noauto", "nofail", "_netdev", "user", "nouser", "users", "owner",
    "group", "comment", "relatime", "norelatime", "atime", "diratime", "nodiratime", "lazytime",
    "nolazytime", "default_permissions", "silent", "loud",
}  # fmt: skip
_NOT_WORDS = {"mountpoint", "options"}


def applied(config: MountConfig) -> tuple[MountConfig, frozenset[str]]:
    """The configuration with its words carried out, and those that are the kernel's.

    Raises:
      UsageError: a word is not known, or its value is none.
    """
    changes: dict[str, Any] = {}
    kernel: set[str] = set()
    for word in (word for text in config.options for word in split(text)):
        name, equals, value = word.partition("=")
        if word in _KERNEL:
            kernel.add(word)
        elif name not in _OTHERS and not name.lower().startswith("x-"):
            setting, given = _setting(word, name, value if equals else None)
            known = changes.get(setting, getattr(config, setting))
            if isinstance(known, list):
                given = [*known, given]
            changes[setting] = convert(given, field_types("mount")[setting], setting, f"-o {word}")
    return replace(config, **changes), frozenset(kernel)


def split(text: str) -> list[str]:
    """Words between commas; ``\\,`` is a comma within one.

    >>> split("ro,key=/a\\\\,b,,subtree=/x")
    ['ro', 'key=/a,b', 'subtree=/x']
    """
    return [word.replace("\\,", ",") for word in re.split(r"(?<!\\),", text) if word]


def _setting(word: str, name: str, value: str | None) -> tuple[str, object]:
    """The setting that a word is about, and what it gives it."""
    setting, fixed = _ALIASES.get(name, (name, None))
    types = field_types("mount")
    negated = setting.removeprefix("no_")
    if setting not in types and negated in types:
        setting, fixed = negated, False
    if setting not in types or setting in _NOT_WORDS:
        raise UsageError(f"mount option {word!r} is not known")
    is_switch = isinstance(getattr(MountConfig(), setting), bool | None)
    if is_switch and fixed is None:
        fixed = True
    if is_switch != (value is None):
        raise UsageError(
            f"mount option {word!r}: {name} {'takes no' if is_switch else 'needs a'} value"
        )
    return setting, fixed if is_switch else value
