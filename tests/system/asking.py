"""Stands for a command of gfs: `tests.system.forking` at the socket named first runs it.

Started with -I -S and with little to load: it is to cost nothing.
"""

import _socket
import marshal
import os
import struct
import sys


def main(name: str, words: list[str]) -> int:
    """Hand all that a process has over, and wait for the exit code."""
    given = [os.fsencode(word) for word in words], os.getcwdb(), dict(os.environb)
    streams = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("3i", 0, 1, 2))
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    server.connect(f"\0{name}")
    server.sendmsg([marshal.dumps(given)], [streams])
    code = int(server.recv(16) or b"125")
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
