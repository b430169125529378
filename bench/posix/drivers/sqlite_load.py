"""Several processes write and read one SQLite database, then everything is counted.

Each writer inserts rows of its own and moves money between accounts; the readers
must always see the same sum. Usage: sqlite_load PATH MODE.
"""

from __future__ import annotations

import multiprocessing
import sqlite3
import sys

WRITERS = 4
READERS = 2
TRANSACTIONS = 60
READS = 100
ACCOUNTS = 50
MONEY = 1000
BUSY_S = 60.0


def main(path: str, mode: str) -> int:
    """Make the database, load it, check it; 0 if all is right."""
    base = _open(path)
    base.execute(f"pragma journal_mode={mode}")
    base.execute("create table rows (writer int, number int, text text)")
    base.execute("create table accounts (id integer primary key, money int)")
    accounts = [(number, MONEY) for number in range(ACCOUNTS)]
    base.executemany("insert into accounts values (?, ?)", accounts)
    base.commit()
    base.close()
    works = [multiprocessing.Process(target=_write, args=(path, n)) for n in range(WRITERS)]
    works += [multiprocessing.Process(target=_read, args=(path,)) for _ in range(READERS)]
    for work in works:
        work.start()
    for work in works:
        work.join()
    codes = [work.exitcode for work in works]
    base = _open(path)
    check = base.execute("pragma integrity_check").fetchall()
    counts = base.execute("select writer, count(*), sum(number) from rows group by 1").fetchall()
    expected = [(n, TRANSACTIONS, sum(range(TRANSACTIONS))) for n in range(WRITERS)]
    print(f"exit codes {codes}, integrity {check}, rows {counts}, money {_sum(base)}")
    whole = check == [("ok",)] and counts == expected and _sum(base) == MONEY * ACCOUNTS
    return 0 if whole and not any(codes) else 1


def _write(path: str, writer: int) -> None:
    base = _open(path)
    for number in range(TRANSACTIONS):
        base.execute("begin immediate")
        base.execute("insert into rows values (?, ?, ?)", (writer, number, "x" * 500))
        amount, one, other = number % 7, number % ACCOUNTS, (number * 7 + writer) % ACCOUNTS
        base.execute("update accounts set money = money - ? where id = ?", (amount, one))
        base.execute("update accounts set money = money + ? where id = ?", (amount, other))
        base.execute("commit")


def _read(path: str) -> None:
    base = _open(path)
    for _ in range(READS):
        if (found := _sum(base)) != MONEY * ACCOUNTS:
            raise SystemExit(f"a reader saw {found}")


def _sum(base: sqlite3.Connection) -> int:
    return int(base.execute("select sum(money) from accounts").fetchone()[0])


def _open(path: str) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
