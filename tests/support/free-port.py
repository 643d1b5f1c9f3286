# SPDX-License-Identifier: Apache-2.0
"""Prints a free TCP port of 127.0.0.1 that no other test is given while the server for it starts.

What bind() chooses can be chosen again as soon as it is closed, and a server takes seconds until it binds. So
each test takes the next number of a file that they share, below those that the kernel gives to connections.
"""
import fcntl
import os
import socket

FIRST, LAST = 20000, 32000


def counter():
    path = f"/tmp/reseal-test-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def is_free(port):
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def take(fd):
    fcntl.flock(fd, fcntl.LOCK_EX)
    text = os.pread(fd, 16, 0)
    last = int(text) if text.isdigit() else LAST
    for _ in range(LAST - FIRST + 1):
        last = last + 1 if FIRST <= last < LAST else FIRST
        if is_free(last):
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d" % last, 0)
            return last
    raise SystemExit("no port is free")


print(take(counter()))
