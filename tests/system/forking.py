"""Commands of gfs in processes forked from one that has loaded them all.

    python -m tests.system.forking NAME    serves at the abstract Unix socket NAME

To load Python, trio and the rest takes ten times as long as what most commands do, and
tests run hundreds of them. `asking.py` stands for a command: it hands over its words,
directory, environment and standard streams, waits, and ends with the command's exit code.
The command is a process of its own; if who asked is gone it is killed. Serves until
standard input ends.
"""

from __future__ import annotations

import gc
import importlib
import marshal
import os
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress

from gfs.cli.main import COMMANDS, run

MESSAGE_BYTES_MAX = 1 << 18


def serve(name: str) -> None:
    """Until standard input ends."""
    for group in COMMANDS.values():
        for _, place, _ in group:
            importlib.import_module(place.partition(":")[0])
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how the forked have ended
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"\0{name}")
        listener.listen(64)
        print("ready", flush=True)
        while 0 not in select.select([0, listener.fileno()], [], [])[0]:
            asker, _ = listener.accept()
            if not os.fork():
                listener.close()
                os._exit(answer(asker))
            asker.close()


def answer(asker: socket.socket) -> int:
    """Run one command in a child, and tell its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, streams, _, _ = socket.recv_fds(asker, MESSAGE_BYTES_MAX, 3)
    child = os.fork()
    if not child:
        asker.close()
        os._exit(command(message, streams))
    ended = os.pidfd_open(child)
    if ended not in select.select([asker.fileno(), ended], [], [])[0]:
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with suppress(OSError):
        asker.send(b"%d" % code)
    return 0


def command(message: bytes, streams: list[int]) -> int:
    """The command itself, in its place."""
    words, directory, environment = marshal.loads(message)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(directory)
    os.environb.clear()
    os.environb.update(environment)
    try:
        code = run([os.fsdecode(word) for word in words])
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    serve(sys.argv[1])
