"""Tables of a state as plain values, to be compared."""

from __future__ import annotations

from typing import Any

from master.checking import pages
from master.core.tables import ReadTables


def dump(tables: ReadTables, table: str) -> dict[Any, Any]:
    """All items of a table."""
    return dict(pages(tables, table))
