"""The names that views and peers are measured with: a tree of directories, the same each time.

Directories hang on one top directory, so that a rename of it moves everything. Names are
words, a number and an extension, as in logs, pictures and sources; one file in 10,000 has a
rare name, which `find` looks for.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

TOP = b"data"
FILES_IN_DIRECTORY = 45  # on average; the sizes of directories are exponential
RARE_EVERY = 10_000
_WORDS = """
alpha anchor april archive arrow autumn badge barrel basket beacon bridge bronze button cabin
camera candle canyon capture castle cedar census chapel cherry cipher circle cobalt comet copper
coral cotton crater crystal daily delta desert dragon eagle ember engine falcon fever fiber filter
flame forest fossil garden glacier granite harbor hazel helmet index invoice island ivory jacket
jasmine jungle kernel ladder lagoon lantern ledger lemon lily lunar magnet maple marble meadow
mirror monthly mosaic nebula nickel olive orbit orchid packet palace pebble pepper pigment planet
prairie prism quartz quiver radar raven report ribbon river saddle salmon sample satin season
shadow signal silver spiral summit tablet temple thunder timber topaz tunnel turbine valley velvet
violet walnut weekly willow winter zephyr
"""
WORDS = _WORDS.split()
EXTENSIONS = ("log", "txt", "py", "c", "h", "jpg", "JPG", "tar.gz", "csv", "parquet", "md", "")
OWNERS = 20


@dataclass(frozen=True, slots=True)
class Node:
    """A directory (`size` -1) or file; `parent` is the number of a directory, -1 for none."""

    parent: int
    name: bytes
    size: int
    uid: int
    age_s: int  # since its last change

    @property
    def is_directory(self) -> bool:
        return self.size < 0


def rare_name(number: int) -> bytes:
    """The rare name with this number, from 0."""
    return b"needle-%06d.xyz" % number


def nodes(files: int, seed: int = 1) -> Iterator[Node]:
    """Directories before what is in them; directories have numbers from 0, in their order."""
    rng = random.Random(seed)
    made = directories = 0
    while made < files:
        parent = int(directories * rng.random() ** 2) if directories else -1
        name = TOP if parent < 0 else f"{rng.choice(WORDS)}-{directories}".encode()
        uid = 1000 + rng.randrange(OWNERS)
        yield Node(parent, name, -1, uid, int(rng.expovariate(1 / 2e7)))
        inside = min(files - made, 1 + int(rng.expovariate(1 / FILES_IN_DIRECTORY)))
        for _ in range(inside):
            yield _file(rng, directories, made, uid)
            made += 1
        directories += 1


def _file(rng: random.Random, parent: int, number: int, uid: int) -> Node:
    name = rare_name(number // RARE_EVERY)
    if number % RARE_EVERY:
        extension = rng.choice(EXTENSIONS)
        stem = f"{rng.choice(WORDS)}-{rng.choice(WORDS)}-{number}"
        name = (f"{stem}.{extension}" if extension else stem).encode()
    size = min(int(rng.lognormvariate(9, 2.5)), 1 << 40)
    return Node(parent, name, size, uid, int(rng.expovariate(1 / 1e7)))


def directory_paths(files: int, seed: int = 1) -> list[str]:
    """Path of every directory by its number, without the leading slash."""
    paths: list[str] = []
    for node in nodes(files, seed):
        if node.is_directory:
            above = f"{paths[node.parent]}/" if node.parent >= 0 else ""
            paths.append(above + node.name.decode())
    return paths
