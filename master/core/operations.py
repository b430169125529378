"""Which decision each mutation is, and what its record is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gfs import messages as m
from gfs.messages import Done, Message
from master.core import attributes, commits, namespace, quotas, renaming, tails, trash
from master.core.chunks import Chunks
from master.core.decision import Decision
from master.core.snapshots import snapshot

PLAIN: dict[type[Message], Callable[[Decision, Any], Done]] = {
    m.Create: namespace.create,
    m.MakeNode: namespace.make_node,
    m.MakeSymlink: namespace.make_symlink,
    m.MakeLink: namespace.make_link,
    m.Unlink: namespace.unlink,
    m.RemoveDirectory: namespace.remove_directory,
    m.RemoveTree: namespace.remove_tree,
    m.Rename: renaming.rename,
    m.SetAttributes: attributes.set_attributes,
    m.SetXattr: attributes.set_xattr,
    m.RemoveXattr: attributes.remove_xattr,
    m.Snapshot: snapshot,
    m.Clone: snapshot,
    m.Undelete: trash.undelete,
    m.EmptyTrash: trash.empty,
    m.Commit: commits.commit,
    m.SetQuota: quotas.set_quota,
    m.ClearQuota: quotas.clear_quota,
}
# What quotas may refuse although it makes nothing new; more is limited where it is decided.
LIMITED = {m.Rename, m.Snapshot, m.Clone, m.Undelete}
WITH_CHUNKS: dict[type[Message], Callable[[Any, Decision, Any], Done]] = {
    m.Allocate: lambda chunks, decision, op: chunks.allocate(decision, op),
    m.SealChunk: lambda chunks, decision, op: chunks.seal_private(decision, op),
    m.OpenTail: lambda chunks, decision, op: tails.open_tail(decision, chunks, op),
    m.ResolveTail: lambda chunks, decision, op: tails.resolve_tail(decision, chunks, op),
}
NAMES: dict[type[Message], str] = {
    m.MakeNode: "make",
    m.MakeSymlink: "symlink",
    m.MakeLink: "link",
    m.RemoveDirectory: "rmdir",
    m.RemoveTree: "remove-tree",
    m.SetAttributes: "setattr",
    m.SetXattr: "setxattr",
    m.RemoveXattr: "removexattr",
    m.EmptyTrash: "empty-trash",
    m.SealChunk: "seal-chunk",
    m.OpenTail: "open-tail",
    m.ResolveTail: "resolve-tail",
    m.SetQuota: "quota",
    m.ClearQuota: "quota",
}


def operation_name(operation: Message) -> str:
    """The record's and the stream's name of an operation."""
    kind = type(operation)
    return NAMES.get(kind, kind.__name__.lower())


def apply_operation(chunks: Chunks, decision: Decision, operation: Message) -> Done:
    """Decide it. Raises its refusal, or Suspend."""
    plain = PLAIN.get(type(operation))
    if plain is not None:
        return plain(decision, operation)
    return WITH_CHUNKS[type(operation)](chunks, decision, operation)
