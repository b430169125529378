"""A reader who believes the stream: events, put together, are the tables.

Written from docs/stream.md and from what comes as JSON; nothing of the master is used.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable
from typing import Any

from gfs import changes
from gfs.items import TABLES
from gfs.records import CHANGE_OF, Record

Key = tuple[Any, ...]
Image = dict[str, Any]
COUNTED = ("inodes", "dirents")  # their `version` rises with each change, and alone is none


def lines_of(events: Iterable[changes.Event]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in changes.encode(events).splitlines()]


def image_of(table: str, image: Image) -> Image:
    return {k: v for k, v in image.items() if table not in COUNTED or k != "version"}


def key_of(line: dict[str, Any]) -> Key:
    return tuple(line["keys"].values())


class Fold:
    """All tables, by what the stream says."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[Key, Image]] = {name: {} for name in CHANGE_OF}

    def take(self, line: dict[str, Any]) -> None:
        if line["kind"] == "copy":
            self.copy(line["copy"], line["time_ns"])
            return
        table, key = line["table"], key_of(line)
        rows = self.tables[table]
        old, new = line.get("old"), line.get("new")
        assert (line["kind"] == "insert") == (old is None)
        assert (line["kind"] == "remove") == (new is None)
        before = rows.pop(key, None)
        if line["operation"] != "fsck":  # which mends what no record has told
            assert before == (None if old is None else image_of(table, old)), line
        if new is not None:
            rows[key] = image_of(table, new)
            assert rows[key] != before or line["operation"] == "fsck", line

    def copy(self, copy: dict[str, Any], time_ns: int) -> None:
        inodes, names = self.tables["inodes"], self.tables["dirents"]
        children: dict[int, list[tuple[Key, Image]]] = {}
        for key, image in names.items():
            children.setdefault(key[0], []).append((key, image))
        links = {copy["source"]: 1}
        inside: list[tuple[Key, Image]] = []
        todo = [copy["source"]]
        while todo:
            for key, image in children.get(todo.pop(), []):
                inside.append((key, image))
                links[image["ino"]] = links.get(image["ino"], 0) + 1
                if stat.S_ISDIR(image["kind"]):
                    todo.append(image["ino"])
        assert len(links) == copy["count"]
        made = {ino: copy["first"] + rank for rank, ino in enumerate(sorted(links))}
        assert made[copy["source"]] == copy["root"]
        for ino, number in made.items():
            image = self.owned(dict(inodes[ino,]), copy) | {"ctime_ns": time_ns}
            image |= {"created_ns": time_ns, "data_version": 0}
            if stat.S_ISDIR(image["mode"]):
                top = ino == copy["source"]
                image["parent"] = copy["parent"] if top else made[image["parent"]]
            else:
                image["nlink"] = links[ino]
            inodes[number,] = without_defaults(image)
        for key, image in inside:
            names[made[key[0]], key[1]] = image | {"ino": made[image["ino"]]}
        for key, image in list(self.tables["extents"].items()):
            if key[0] in made:
                self.tables["extents"][made[key[0]], key[1]] = image
                chunk = self.tables["chunks"][image["handle"],]
                references = chunk.get("references", 0) + image["length"]
                self.tables["chunks"][image["handle"],] = chunk | {"references": references}

    def owned(self, image: Image, copy: dict[str, Any]) -> Image:
        if copy["uid"] < 0:
            return image
        gid = image["gid"] if image["gid"] in copy["groups"] else copy["gid"]
        if image["uid"] != copy["uid"]:
            image["mode"] &= ~stat.S_ISUID
        if image["gid"] != gid:
            image["mode"] &= ~stat.S_ISGID
        kept = {
            name: value
            for name, value in image.get("attributes", {}).items()
            if not name.startswith(("trusted.", "security."))
        }
        return image | {"uid": copy["uid"], "gid": gid, "attributes": kept}


def without_defaults(image: Image) -> Image:
    """As the stream leaves out what is 0, empty or absent, but for what stands in each image."""
    always = ("mode", "uid", "gid", "nlink", "size", "atime_ns", "mtime_ns", "ctime_ns")
    return {name: value for name, value in image.items() if value or name in always}


def check_fold(records: list[Record], tables: Any) -> None:
    """Events of all tables, folded, are what the tables hold; by default they show no more."""
    fold = Fold()
    for record in records:
        lines = lines_of(changes.events_of(record, tables=CHANGE_OF))
        for line in lines:
            fold.take(line)
        shown = lines_of(changes.events_of(record))
        assert shown == [line for line in lines if line["table"] in changes.DEFAULT_TABLES]
    for table, rows in fold.tables.items():
        held = [
            changes.snapshot_event(table, key, item, "0-0")
            for key, item in tables.scan(table, limit=10_000_000)
        ]
        expected = {key_of(line): image_of(table, line["new"]) for line in lines_of(held)}
        assert rows == expected, table
    assert set(TABLES) - set(CHANGE_OF) == {"landed"}
