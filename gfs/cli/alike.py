"""`gfs report duplicates --verify`: whether files that are likely alike are.

Each is read once, with the caller's rights, and told apart by SHA-256: nothing is kept but
that, however large or many they are.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from gfs.changes import bytes_of
from gfs.cli.files import content_of
from gfs.cli.finding import Place, connected
from gfs.errors import GfsError

if TYPE_CHECKING:
    from gfs.client.filesystem import Filesystem

SAME, OTHER = "same", "other"


async def verified(place: Place, found: dict[str, Any]) -> list[str]:
    """For each row of the report: `same` as another one of its size and digest, `other` than
    all of them, or why it could not be read.

    Raises: GfsError: the master cannot be reached.
    """
    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
    seen: list[tuple[Any, ...] | str] = []
    async with connected(place) as files:
        for row in rows:
            path = str(row["path"])
            if not path.startswith("/"):
                seen.append("not read: it has no path")  # in the trash, or without a name
                continue
            hashed = hashlib.sha256()
            try:
                async with contextlib.aclosing(
                    content_of(files, bytes_of(path), _ignore)
                ) as pieces:
                    async for data in pieces:
                        hashed.update(data)
            except GfsError as error:
                seen.append(f"not read: {error}")
                continue
            seen.append((row["size"], row["digest"], hashed.digest()))
    alike = Counter(seen)
    return [one if isinstance(one, str) else SAME if alike[one] > 1 else OTHER for one in seen]


async def _hash(files: Filesystem, path: bytes) -> bytes:
    hashed = hashlib.sha256()
    async with contextlib.aclosing(content_of(files, path, _ignore)) as pieces:
        async for data in pieces:
            hashed.update(data)
    return hashed.digest()


def _ignore(_: int) -> None:
    """Nobody watches."""
