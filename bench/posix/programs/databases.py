"""SQLite, PostgreSQL, DuckDB."""

from __future__ import annotations

from bench.posix.program import Program

GROUP = "databases"
POSTGRES = """
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
mkdir db
chown postgres: db
chmod 700 db
as() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
as "$bin/initdb" -D "$HERE/db" -A trust > init.log || { cat init.log; exit 1; }
start() {
    as "$bin/pg_ctl" -D "$HERE/db" -w -t 300 -l "$TMPDIR/pg.log" start \
        -o "-c listen_addresses= -c unix_socket_directories=$LOCAL -c fsync=on $1" > start.log ||
        { cat start.log "$TMPDIR/pg.log"; exit 1; }
}
chmod 777 "$LOCAL"
chmod 711 "$LOCAL/.." "$LOCAL/../.."
trap 'as "$bin/pg_ctl" -D "$HERE/db" -m immediate stop > /dev/null 2>&1 || true' EXIT
start ""
export PGHOST=$LOCAL PGUSER=postgres
"""
BALANCED = """
sums=$(psql -Atc "select (select sum(abalance) from pgbench_accounts) =
    (select coalesce(sum(delta), 0) from pgbench_history), (select sum(tbalance) from
    pgbench_tellers) = (select coalesce(sum(delta), 0) from pgbench_history)" postgres)
[ "$sums" = "t|t" ] || { echo "sums differ: $sums"; exit 1; }
"""

PROGRAMS = (
    Program(
        "sqlite-speed",
        GROUP,
        "SQLite: inserts, updates, deletes, vacuum, check",
        """
        for mode in delete truncate persist wal; do
        sqlite3 $mode.db <<SQL
.bail on
pragma journal_mode=$mode;
create table t(a integer primary key, b text, c int);
begin;
with recursive n(i) as (select 1 union all select i+1 from n where i<20000)
insert into t select i, hex(randomblob(20)), i % 97 from n;
commit;
create index t_c on t(c);
update t set b = b || 'x' where c < 20;
delete from t where c between 30 and 40;
vacuum;
pragma integrity_check;
SQL
        [ "$(sqlite3 $mode.db 'select count(*) from t')" = 17734 ]
        [ "$(sqlite3 $mode.db 'pragma integrity_check')" = ok ]
        done
        """,
        packages=("sqlite3",),
        limit_s=120.0,
    ),
    Program(
        "sqlite-rollback",
        GROUP,
        "SQLite, rollback journal: four processes write, two read",
        '"$PYTHON" -m bench.posix.drivers.sqlite_load "$HERE/db" delete',
        limit_s=120.0,
    ),
    Program(
        "sqlite-wal",
        GROUP,
        "SQLite, WAL: four processes write, two read",
        '"$PYTHON" -m bench.posix.drivers.sqlite_load "$HERE/db" wal',
        limit_s=120.0,
    ),
    Program(
        "postgres",
        GROUP,
        "PostgreSQL: initdb, pgbench with four clients, balances agree, dump",
        POSTGRES
        + """
        "$bin/pgbench" -q -i -s 2 postgres
        "$bin/pgbench" -n -c 4 -j 2 -t 50 postgres
        """
        + BALANCED
        + """
        pg_dump postgres > dump.sql
        grep -q 'PostgreSQL database dump complete' dump.sql
        psql -qc 'vacuum full' postgres
        psql -qc 'reindex database postgres' postgres
        """,
        packages=("postgresql",),
        limit_s=600.0,
    ),
    Program(
        "postgres-crash",
        GROUP,
        "PostgreSQL killed by kill -9 within pgbench, recovers, balances agree",
        POSTGRES
        + """
        "$bin/pgbench" -q -i -s 1 postgres
        "$bin/pgbench" -n -c 4 -j 2 -T 30 postgres > bench.log 2>&1 &
        sleep 4
        server=$(head -1 db/postmaster.pid)
        kill -9 $(cat /proc/$server/task/*/children) $server
        wait || true
        rm -f "$LOCAL"/.s.PGSQL*
        for i in $(seq 50); do [ -e /proc/$server ] || break; sleep 0.1; done
        start ""
        grep -q 'automatic recovery in progress' "$TMPDIR/pg.log"
        [ "$(psql -Atc 'select count(*) > 0 from pgbench_history' postgres)" = t ]
        """
        + BALANCED,
        packages=("postgresql",),
        limit_s=600.0,
    ),
    Program(
        "duckdb",
        GROUP,
        "DuckDB file and Parquet written, read by another process, spilled sort",
        '"$PYTHON" -m bench.posix.drivers.duckdb_load "$HERE"',
        limit_s=120.0,
    ),
)
