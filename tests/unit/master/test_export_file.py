"""The file of exports: what it says, and what is refused with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from gfs.errors import PermissionDenied, UsageError
from gfs.messages import Access
from master.core.exports import Exports
from master.export_file import rules_of

WHOLE = """
[[exports]]
clients = ["10.1.0.0/16"]
mounts = ["backup-*", ""]
access = "read-only"
subtree = "/data"
map_uid = ["1000:5000:100"]
map_gid = ["1000:5000"]
squash = "root"
anon_uid = 99
anon_gid = 98

[[exports]]
clients = ["10.2.0.0/16"]
access = "none"

[[exports]]
"""


def test_every_key_says_what_it_says(tmp_path: Path) -> None:
    file = tmp_path / "exports"
    file.write_text(WHOLE)
    exports = Exports(rules_of(str(file)))
    assert exports.access_of("10.1.0.1", "backup-7") == Access(
        True, b"/data", [(1000, 5000, 100)], [(1000, 5000, 1)], "root", 99, 98
    )
    with pytest.raises(PermissionDenied):
        exports.access_of("10.2.0.1", "")
    assert exports.access_of("192.0.2.1", "") == Access()
    assert rules_of("") == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[[exports]\n", "exports"),
        ("[[exports]]\nkey = 'x'\n", "key"),
        ("[[export]]\n", "export"),
        ("[[exports]]\naccess = 'ro'\n", "ro"),
        ("[[exports]]\n[[exports]]\nclients = ['x']\n", "rule 2"),
        ("[[exports]]\nmap_uid = ['1000']\n", "'1000'"),
        ("[[exports]]\nmap_uid = ['1:5:3', '2:9']\n", "two ranges"),
        ("[[exports]]\nsubtree = 'data'\n", "data"),
    ],
)
def test_what_is_not_known_is_refused(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "exports"
    file.write_text(text)
    with pytest.raises(UsageError, match=why) as refused:
        rules_of(str(file))
    assert str(file) in str(refused.value)


def test_a_missing_file_is_no_empty_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the exports"):
        rules_of(str(tmp_path / "none"))
