"""What a batch says of the names of files, by inode, and what it changes by extension.

Sums by extension are kept as differences that add up. An inode counts at the extension of
its least name; mostly a batch tells which that was and is. Where it does not (several
links, content that changed under a name that did not) the view's rows have to be asked.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass, field

from gfs.changes import Image
from projections.core.following import DirentKey, FileChange, Items

SUFFIX_CHARACTERS_MAX = 16


@dataclass
class Names:
    """Names that files (all but directories) lost and got in a batch: their directories too."""

    lost: dict[int, DirentKey] = field(default_factory=dict)  # by inode, the last one told
    got: dict[int, DirentKey] = field(default_factory=dict)
    several: set[int] = field(default_factory=set)  # inodes that lost, or got, more than one


@dataclass
class ByExtension:
    """What to add to the sums: files, bytes, disk bytes.

    Attributes:
      known: by suffix, which is an extension not yet in lower case.
      resized: inode, bytes and disk bytes more, of files whose only name is as it was.
      asked: inodes of whom the rows must tell, what they are before and after.
    """

    known: dict[str, list[int]] = field(default_factory=dict)
    resized: list[tuple[int, int, int]] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)


def names_of(items: Items) -> Names:
    """Of all files whose names a batch touches."""
    found = Names()
    for key, old in items.old_dirents.items():
        if not stat.S_ISDIR(old.kind):
            if old.ino in found.lost:
                found.several.add(old.ino)
            found.lost[old.ino] = key
    for key, new in items.dirents.items():
        if new is not None and not stat.S_ISDIR(new.kind):
            if new.ino in found.got:
                found.several.add(new.ino)
            found.got[new.ino] = key
    return found


def suffix_of(name: str) -> str:
    """What follows the last dot; "" for none, hidden names and long ones."""
    stem, dot, suffix = name.rpartition(".")
    return suffix if dot and stem.strip(".") and len(suffix) <= SUFFIX_CHARACTERS_MAX else ""


def by_extension(items: Items, files: Iterable[FileChange], names: Names) -> ByExtension:
    """What a batch changes in the sums by extension; `files` and `names` are those of `items`."""
    found = ByExtension()
    lost, got = names.lost, names.got
    for ino, old, new in files:
        if ino in lost or ino in got or old is None or new is None:
            _count_named(ino, old, new, names, found)
        elif old.size != new.size or old.stored != new.stored:
            if old.nlink <= 1 and new.nlink <= 1:
                found.resized.append((ino, new.size - old.size, _on_disk(new) - _on_disk(old)))
            else:
                found.asked.append(ino)
    found.asked += [ino for ino in {**lost, **got} if ino not in items.inodes]
    return found


def _count_named(
    ino: int, old: Image | None, new: Image | None, names: Names, found: ByExtension
) -> None:
    """A file that came, went, or has another name."""
    lost, got = names.lost.get(ino), names.got.get(ino)
    old_told = old is None or (lost is not None and old.nlink == 1)
    new_told = new is None or (got is not None and new.nlink == 1)
    if not old_told or not new_told or ino in names.several:
        found.asked.append(ino)
        return
    if old is not None and lost is not None:
        add_image(found.known, suffix_of(lost[1]), -1, old)
    if new is not None and got is not None:
        add_image(found.known, suffix_of(got[1]), 1, new)


def add_image(known: dict[str, list[int]], suffix: str, sign: int, image: Image) -> None:
    """Count a file, its bytes and those on disk at `suffix`; with `sign` -1 no longer."""
    sums = known.get(suffix)
    if sums is None:
        sums = known[suffix] = [0, 0, 0]
    sums[0] += sign
    sums[1] += sign * image.size
    sums[2] += sign * _on_disk(image)


def _on_disk(image: Image) -> int:
    return (image.stored + 511) // 512 * 512
