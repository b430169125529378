"""Sections of the configuration: one struct a daemon, each value with its default and a line.

Names end in their unit. `cluster_id`, `key_file` and `cluster_dir` belong to section
``[cluster]`` (keys ``id``, ``key_file``, ``dir``) and are part of every daemon's
configuration; everything else stands under the daemon's own section. gfs.config says
how values come in; here is only what there is.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from gfs.identities import ID_MAX, NOBODY
from gfs.ids import CHUNK_BYTES, GIB, KIB, MIB

Level = Literal["debug", "info", "warning", "error"]
AtimeMode = Literal["relatime", "noatime", "strictatime"]


def _about(text: str, low: float | None = None, high: float | None = None) -> Meta:
    return Meta(description=text, ge=low, le=high)


Address = Annotated[str, _about("HOST:PORT to listen on; port 0 takes a free one")]
HttpAddress = Annotated[str, _about("HOST:PORT for HTTP; port 0 takes a free one")]
UnixPath = Annotated[str, _about("Unix socket to listen on; empty for none")]
HttpUnixPath = Annotated[str, _about("Unix socket for HTTP; empty for none")]
Advertised = Annotated[str, _about("HOST:PORT that others are told; empty: the bound one")]
MasterAddress = Annotated[str, _about("HOST:PORT of the master; with commas, of its shadows too")]
MasterUnix = Annotated[str, _about("Unix sockets, tried first, in the same order")]

_id = _about("id of the cluster; empty accepts whichever answers")
_key = _about("file with the cluster's key, mode 0600")
_dir = _about("directory or URL by which `gfs` finds this cluster")


class ClusterConfig(Struct, kw_only=True, forbid_unknown_fields=True):
    """What all daemons of a cluster have in common; section [cluster]."""

    cluster_id: Annotated[str, _id] = ""
    key_file: Annotated[str, _key] = ""
    cluster_dir: Annotated[str, _dir] = ""


class DaemonConfig(ClusterConfig):
    """What every daemon has besides; in the daemon's own section."""

    log_level: Annotated[Level, _about("least severe message that is logged")] = "info"
    log_file: Annotated[str, _about("log file, rotated at 10 MiB; empty: stderr")] = ""
    ready_file: Annotated[str, _about("JSON with addresses and pid, written once serving")] = ""


class MasterConfig(DaemonConfig):
    """The master; section [master]."""

    data_dir: Annotated[str, _about("operation log, state and checkpoints")] = ""
    exports_file: Annotated[str, _about("who may mount what; empty: all may everything")] = ""
    follow: Annotated[str, _about("be a shadow of the master at HOST:PORT (GFS §5.1.3)")] = ""
    address: Address = "127.0.0.1:0"
    advertise: Advertised = ""
    unix: UnixPath = ""
    http: HttpAddress = "127.0.0.1:0"
    http_unix: HttpUnixPath = ""
    stream_http: Annotated[str, _about("HOST:PORT of the change stream")] = "127.0.0.1:0"
    stream_unix: Annotated[str, _about("Unix socket of the change stream")] = ""
    stream_readers: Annotated[int, _about("who may follow the stream at once", 1, 10_000)] = 200
    chunk_bytes: Annotated[int, _about("size of a chunk (GFS §2.5)", MIB, GIB)] = CHUNK_BYTES
    goal: Annotated[int, _about("replicas of a chunk", 1, 9)] = 3
    write_min: Annotated[int, _about("servers a new chunk needs at least", 1, 9)] = 2
    cache_lease_s: Annotated[float, _about("how long a mount may cache unasked", 0.5, 3600)] = 20.0
    trash_keep_s: Annotated[float, _about("how long trash is kept", 0)] = 259_200.0
    trash_min_age_s: Annotated[float, _about("younger files are not kept in trash", 0)] = 600.0
    trash_min_free_percent: Annotated[
        int, _about("with less free space, trash goes before its time", 0, 90)
    ] = 10
    quota_grace_s: Annotated[
        float, _about("how long the soft limit of a quota may be exceeded", 0)
    ] = 604_800.0
    checkpoint_records: Annotated[int, _about("log records between checkpoints", 100)] = 200_000
    log_segment_bytes: Annotated[int, _about("size of a log segment file", MIB)] = 64 * MIB
    log_retain_bytes: Annotated[int, _about("log kept for readers of the stream", MIB)] = GIB
    log_retain_s: Annotated[
        float, _about("older log is not kept for them either; 0: whatever its age", 0)
    ] = 0.0
    reclaim_delay_s: Annotated[float, _about("from condemned to deleted (GFS §4.4)", 0)] = 600.0
    safe_start_s: Annotated[float, _about("after a start nothing is deleted", 0)] = 60.0
    repair_delay_s: Annotated[
        float, _about("a lost server is waited for before its chunks are copied (GFS §4.3)", 0)
    ] = 10.0
    repair_streams: Annotated[int, _about("copies at a time from and to a server", 1, 16)] = 3
    rebalance_bytes_per_s: Annotated[
        int, _about("moved to emptier servers at most; 0: nothing is moved", 0)
    ] = 16 * MIB
    rebalance_band: Annotated[
        float, _about("free shares of servers are left this far apart", 0.01, 1)
    ] = 0.1
    scattered_extents: Annotated[
        int, _about("a file of more extents, small ones, is brought together", 2)
    ] = 512


class ChunkdConfig(DaemonConfig):
    """A chunk server; section [chunkd]."""

    data_dirs: Annotated[list[str], _about("data directories")] = field(default_factory=list)
    address: Address = "127.0.0.1:0"
    advertise: Advertised = ""
    unix: UnixPath = ""
    http: HttpAddress = "127.0.0.1:0"
    http_unix: HttpUnixPath = ""
    master: MasterAddress = ""
    master_unix: MasterUnix = ""
    rack: Annotated[str, _about("label; replicas are spread over racks (GFS §4.2)")] = ""
    reserve_bytes: Annotated[
        int, _about("left free on each disk; -1: 5 % of the disk, at most 2 GiB", -1)
    ] = -1
    scrub_period_s: Annotated[
        float, _about("every block is verified once in; 0: never (GFS §5.2)", 0)
    ] = 604_800.0
    scrub_bytes_per_s: Annotated[
        int, _about("read by that from each data directory, at most", 64 * KIB)
    ] = 32 * MIB
    disk_hung_s: Annotated[
        float, _about("a disk that answers nothing for so long is taken out", 0.1)
    ] = 10.0


class MountConfig(DaemonConfig):
    """A mount; section [mount]."""

    mountpoint: Annotated[str, _about("empty directory to mount at")] = ""
    master: MasterAddress = ""
    master_unix: MasterUnix = ""
    http: Annotated[str, _about("HOST:PORT of statistics; empty: none")] = ""
    http_unix: HttpUnixPath = ""
    allow_other: Annotated[
        bool | None, _about("let other users in; default: where that is permitted")
    ] = None
    write_back_bytes: Annotated[int, _about("written, not yet committed, at most", MIB)] = 64 * MIB
    flush_after_s: Annotated[float, _about("written data is sent after", 0.01, 5)] = 1.0
    read_ahead_kib: Annotated[int, _about("kernel read-ahead, set when root", 0)] = 4096
    name: Annotated[str, _about("name in the change stream; empty: the mountpoint")] = ""
    source: Annotated[str, _about("shown as the mount's source; empty: the cluster")] = ""
    new_session: Annotated[bool, _about("begin a session of its own, once mounted")] = False
    options: Annotated[
        list[str], _about("words as mount(8) has them: ro, subtree=/x, allow_other")
    ] = field(default_factory=list)
    read_only: Annotated[bool, _about("nothing can be changed through this mount")] = False
    subtree: Annotated[str, _about("directory that is the root of this mount")] = "/"
    map_uid: Annotated[list[str], _about("FROM:TO[:COUNT]: users here, and as they are stored")] = (
        field(default_factory=list)
    )
    map_gid: Annotated[
        list[str], _about("FROM:TO[:COUNT]: groups here, and as they are stored")
    ] = field(default_factory=list)
    root_squash: Annotated[bool, _about("root acts as anon_uid and anon_gid")] = False
    all_squash: Annotated[bool, _about("everybody acts as anon_uid and anon_gid")] = False
    anon_uid: Annotated[int, _about("user that squashed ones act as", 0, ID_MAX)] = NOBODY
    anon_gid: Annotated[int, _about("group that squashed ones act as", 0, ID_MAX)] = NOBODY
    atime: Annotated[AtimeMode, _about("when reading sets the access time")] = "relatime"


class ProjectionsConfig(DaemonConfig):
    """Views of the metadata; section [projections]."""

    view: Annotated[str, _about("which view this process keeps, or all")] = "all"
    data_dir: Annotated[str, _about("where the views lie")] = ""
    stream: Annotated[str, _about("URL of the change stream")] = ""
    stream_unix: Annotated[str, _about("Unix socket of the stream, tried first")] = ""
    http: HttpAddress = "127.0.0.1:0"
    unix: HttpUnixPath = ""
    history: Annotated[bool, _about("keep what happened, which no rebuild drops")] = True
    history_days: Annotated[float, _about("what happened is kept so long", 0.01, 36_500)] = 400.0
    history_rows: Annotated[int, _about("events of files kept at most", 1)] = 20_000_000
    batch_events: Annotated[int, _about("events in one transaction at most", 1)] = 60_000
    batch_s: Annotated[float, _about("an event waits while more come and somebody asks", 0, 5)] = (
        0.05
    )
    unasked_s: Annotated[float, _about("an event waits while nobody asks the view", 0, 60)] = 1.0
    verify_inodes_per_s: Annotated[
        int, _about("compared with the master all the time; 0: none", 0, 100_000)
    ] = 250
    verify_period_s: Annotated[float, _about("a look at everything begins at most once in", 0)] = (
        60.0
    )
    query_s: Annotated[float, _about("time limit of a query", 0.01)] = 30.0
    export_s: Annotated[float, _about("time limit of an export of the namespace", 0.01)] = 3600.0
    query_rows: Annotated[int, _about("rows of one SQL answer at most", 1)] = 100_000
    query_memory_bytes: Annotated[int, _about("memory of one SQL query", MIB)] = 512 * MIB
    query_threads: Annotated[int, _about("processors that one analytics query may use", 1, 64)] = 1
    wait_s: Annotated[float, _about("how long an answer may wait for a position", 0)] = 30.0


class ClientConfig(ClusterConfig):
    """How commands reach a cluster; section [client]."""

    master: MasterAddress = ""
    master_unix: MasterUnix = ""
    master_http: Annotated[str, _about("URL of the master's HTTP")] = ""
    read_from_shadow: Annotated[bool, _about("ask a shadow master, which may be behind")] = False
    stream: Annotated[str, _about("URL of the change stream")] = ""
    stream_unix: Annotated[str, _about("Unix socket of the change stream")] = ""
    search: Annotated[str, _about("URL of the search view")] = ""
    search_unix: Annotated[str, _about("Unix socket of the search view")] = ""
    analytics: Annotated[str, _about("URL of the analytics view")] = ""
    analytics_unix: Annotated[str, _about("Unix socket of the analytics view")] = ""
    views: Annotated[str, _about("other views: NAME=URL, with commas between")] = ""


SECTIONS: dict[str, type[ClusterConfig]] = {
    "cluster": ClusterConfig,
    "master": MasterConfig,
    "chunkd": ChunkdConfig,
    "mount": MountConfig,
    "projections": ProjectionsConfig,
    "client": ClientConfig,
}

# Field of every struct -> key of section [cluster].
SHARED = {"cluster_id": "id", "key_file": "key_file", "cluster_dir": "dir"}

# Values given as words of the command line instead of a flag.
POSITIONAL = {"mount": "mountpoint"}

# Letters of flags, as other programs have them.
SHORT = {"options": "-o"}
