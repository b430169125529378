"""What the benchmark of the views measures with: its tree, its state, its peer."""

from __future__ import annotations

import os
from pathlib import Path

from bench.views.directory_index import Index, build
from bench.views.peers import LocalTree
from bench.views.state import make_state
from bench.views.tree import directory_paths, nodes, rare_name
from gfs.disk import PosixDisk
from gfs.ids import MIB
from master.checking import Problem, check_tables
from master.ledger import Ledger

FILES = 1200


def test_the_state_made_for_views_is_one_that_the_masters_check_finds_whole(
    tmp_path: Path,
) -> None:
    made = make_state(tmp_path, "c", FILES)
    ledger = Ledger(tmp_path, PosixDisk(), "c", segment_bytes=64 * MIB, uid=0, gid=0)
    try:
        problems: list[Problem] = []
        assert check_tables(ledger.state, problems.append)["names"] >= FILES
        assert problems == []
        assert ledger.newest_checkpoint() > FILES
        assert len(made.directories) == len(directory_paths(FILES))
    finally:
        ledger.close()


def test_an_index_of_databases_answers_as_a_walk_of_the_tree_does(tmp_path: Path) -> None:
    tree = LocalTree(tmp_path / "tree", FILES)
    build(tree.path, tmp_path / "index", 2)
    files = [node for node in nodes(FILES) if not node.is_directory]
    part = directory_paths(FILES)[1]
    inside = sum(
        os.lstat(os.path.join(place, name)).st_size
        for place, _, names in os.walk(tree.path / part)
        for name in names
    )
    index = Index(tmp_path / "index", 2)
    try:
        (rare,) = index.names(rare_name(0).decode())
        assert rare.endswith("/needle-000000.xyz")
        assert index.du("") == sum(node.size for node in files)
        assert index.du(part) == inside
        assert [size for size, _ in index.top(3)] == sorted(n.size for n in files)[:-4:-1]
        assert sum(index.sizes().values()) == FILES
    finally:
        index.close()
