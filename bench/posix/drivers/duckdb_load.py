"""DuckDB: a database and Parquet files written here, read by another process. Usage: DIRECTORY."""

from __future__ import annotations

import subprocess
import sys

import duckdb

ROWS = 400_000
SUM = ROWS * (ROWS - 1) // 2


def main(directory: str, step: str = "write") -> int:
    """Write, then have a process of its own read; 0 if it read what was written."""
    if step == "read":
        return _read(directory)
    base = duckdb.connect(f"{directory}/base.duckdb")
    base.execute("set memory_limit='64MB'; set threads=2")
    base.execute(f"set temp_directory='{directory}/spill'")
    base.execute(
        f"create table t as select i, i % 100 as k, md5(i::varchar) as s from range({ROWS}) r(i)"
    )
    base.execute("checkpoint")
    base.execute("update t set k = k + 1 where i % 10 = 0")
    base.execute("delete from t where i < 0")
    for kind in ("snappy", "zstd"):
        base.execute(f"copy t to '{directory}/{kind}.parquet' (format parquet, codec {kind})")
    base.execute(f"copy t to '{directory}/parts' (format parquet, partition_by (k))")
    base.execute(f"create table sorted as select * from t order by s limit {ROWS}")
    base.close()
    return subprocess.run([sys.executable, "-m", _NAME, directory, "read"], check=False).returncode


def _read(directory: str) -> int:
    base = duckdb.connect(f"{directory}/base.duckdb", read_only=True)
    sources = ("t", "sorted", *(f"'{directory}/{kind}.parquet'" for kind in ("snappy", "zstd")))
    found = [_sums(base, source) for source in (*sources, f"'{directory}/parts/**/*.parquet'")]
    print(found)
    return 0 if set(found) == {(ROWS, SUM)} else 1


def _sums(base: duckdb.DuckDBPyConnection, source: str) -> tuple[int, ...]:
    row = base.execute(f"select count(*), sum(i) from {source}").fetchone()
    assert row is not None
    return tuple(int(value) for value in row)


_NAME = "bench.posix.drivers.duckdb_load"

if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
