"""What `gfs history` says of an event."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gfs.cli.history import told


def row(event: str, detail: Any = None, **values: Any) -> dict[str, Any]:
    empty = {"path": None, "from_path": None, "size": 0, "size_before": 0}
    return {**empty, "event": event, "detail": json.dumps(detail) if detail else "", **values}


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (row("made", path="/a/b"), "/a/b"),
        (row("removed", from_path="/a/b"), "/a/b"),
        (row("renamed", path="/b", from_path="/a"), "/a -> /b"),
        (row("written", size=9, size_before=4), "4 -> 9 bytes"),
        (row("attributes", {"mode": [33188, 33152], "uid": [0, 7]}),
         "mode 0644 -> 0600, uid 0 -> 7"),
        (row("xattrs", {"set": ["user.a"], "removed": ["user.b"]}), "+user.a, -user.b"),
        (row("copied", {"source": 5, "count": 1}, path="/c"), "/c made as a copy of inode 5"),
        (row("copied-to", {"source": 5}, path="/c"), "/c"),
        (row("removed"), ""),
    ],
)  # fmt: skip
def test_an_event_is_told_in_a_few_words(event: dict[str, Any], said: str) -> None:
    assert told(event) == said
