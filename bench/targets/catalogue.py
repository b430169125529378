"""Every target by name."""

from __future__ import annotations

from bench.targets.glusterfs import GlusterFS
from bench.targets.local import Local
from bench.targets.moosefs import MooseFS
from bench.targets.ours import Ours
from bench.targets.target import Target

TARGETS: dict[str, type[Target]] = {kind.name: kind for kind in (Local, Ours, MooseFS, GlusterFS)}
PEERS = (MooseFS.name, GlusterFS.name)
