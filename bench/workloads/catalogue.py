"""Every workload, in the order in which they run: what breaks things comes last."""

from __future__ import annotations

from bench.stage import Workload
from bench.workloads.appending import APPENDERS, APPENDING
from bench.workloads.failure import FAILURE, MEMORY_USE
from bench.workloads.random_reads import RANDOM_READS
from bench.workloads.small_files import SMALL_FILES
from bench.workloads.source_tree import SOURCE_TREE
from bench.workloads.streaming import STREAMING
from bench.workloads.visibility import VISIBILITY

WORKLOADS: tuple[Workload, ...] = (
    STREAMING,
    RANDOM_READS,
    APPENDING,
    APPENDERS,
    SMALL_FILES,
    SOURCE_TREE,
    VISIBILITY,
    MEMORY_USE,
    FAILURE,
)
