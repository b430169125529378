"""Numbers that a daemon has once for each of several things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Labelled(dict[str, Any]):
    """Rows of equal numbers in `statistics`: one metric each, with the row's name as a label."""

    def __init__(self, label: str, rows: Mapping[str, Mapping[str, object]]) -> None:
        super().__init__(rows)
        self.label = label
