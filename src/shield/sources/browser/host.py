"""The process that the browser lives under: `python -I -m shield.sources.browser.host`.

Standard input is a socket to the worker. The host first moves into a network namespace of its own where the kernel allows it,
opens there, on loopback, the socket that the proxy will listen on, and hands it over: the browser then has no network but
that one socket, whatever it tries, and nobody else can reach it. Where the kernel does not allow it, the socket is on the
machine's loopback and the proxy's password is what keeps others out. As root it then becomes `nobody`, which also lets
Chromium use its own sandbox.

Then it starts the browser with no environment, a scratch directory as home, and no descriptor but its pipe. It watches three
things: the worker (end of file: it ended, however), the browser, and the memory of all of the browser's processes together;
above the limit the largest is killed, so a greedy page takes itself down. At the end it kills whatever descends from it, and
being their sub-reaper it finds also those that ran away from their parents; then it removes the scratch directory. Should
the host itself be killed, the browser dies with it by the kernel's hand and takes its children with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
from pathlib import Path
from typing import Any

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 36, 38
CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40
NOBODY = 65534
PIPE_IN, PIPE_OUT = 3, 4
WATCH_MS = 250
"""Pause between two looks at the memory."""
MAX_FILE_BYTES = 256 * 1024 * 1024


def main() -> None:
    """Set up, start the browser when told to, and stay until the worker or the browser ends."""
    control = socket.socket(fileno=0)
    _libc().prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    order = json.loads(control.recv(65536))
    home = Path(order["home"])
    try:
        isolated = order["isolate"] and _cut_network()
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        _curb(order["memory"])  # once now: as nobody we may be unable to read the interpreter's own modules
        _become_nobody(home)
        ready = {"port": listener.getsockname()[1], "isolated": isolated, "root": os.geteuid() == 0}
        socket.send_fds(control, [json.dumps(ready).encode()], [listener.fileno()])
        listener.close()
        message, descriptors, _, _ = socket.recv_fds(control, 65536, 1)
        if message and descriptors:
            _run(control, descriptors[0], home, json.loads(message))
    finally:
        _kill_all()
        shutil.rmtree(home, ignore_errors=True)


def _run(control: socket.socket, pipe: int, home: Path, order: dict[str, Any]) -> None:
    browser = _start(pipe, home, order["command"])
    ended = os.pidfd_open(browser.pid)
    watch = select.poll()
    watch.register(control, select.POLLIN)
    watch.register(ended, select.POLLIN)
    while not (ready := watch.poll(WATCH_MS)):
        _curb(order["memory"])
    if any(descriptor == ended for descriptor, _ in ready):
        with contextlib.suppress(OSError):
            control.send(json.dumps({"status": browser.wait()}).encode())


def _start(pipe: int, home: Path, command: list[str]) -> subprocess.Popen[bytes]:
    os.dup2(pipe, PIPE_IN)
    os.dup2(pipe, PIPE_OUT)
    if pipe not in {PIPE_IN, PIPE_OUT}:
        os.close(pipe)
    os.umask(0o077)
    for limit, value in ((resource.RLIMIT_FSIZE, MAX_FILE_BYTES), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (value, value))
    host, libc = os.getpid(), _libc()

    def settle() -> None:
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != host:
            os._exit(1)

    return subprocess.Popen(  # noqa: S603 -- the program that the settings name
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(PIPE_IN, PIPE_OUT),
        env={"HOME": str(home), "TMPDIR": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"},
        cwd=home,
        preexec_fn=settle,  # noqa: PLW1509 -- this process has one thread
    )


def _curb(memory: int) -> None:
    """Kill the largest process while all together hold more than `memory` bytes."""
    sizes = {process: _own_memory(process.pid) for process in _descendants()}
    while sum(sizes.values()) > memory:
        largest = max(sizes, key=lambda process: sizes[process])
        del sizes[largest]
        with contextlib.suppress(psutil.Error):
            largest.kill()


def _own_memory(pid: int) -> int:
    """Bytes that exist for this process: not the program's file, which all of them share."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return 0
    lines = (line.split() for line in status.splitlines() if line.startswith((b"RssAnon:", b"RssShmem:")))
    return sum(int(line[1]) * 1024 for line in lines)


def _descendants() -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return psutil.Process().children(recursive=True)
    return []


def _kill_all() -> None:
    """Kill every descendant, those that come to us from dead parents too, until none is left."""
    while children := _descendants():
        for process in children:
            with contextlib.suppress(psutil.Error):
                process.kill()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, 0)
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _cut_network() -> bool:
    """Move into a network namespace that has nothing but its own loopback."""
    libc = _libc()
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNET) != 0:
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
            return False
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            Path(f"/proc/self/{name}").write_bytes(text.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP | IFF_RUNNING))
    return True


def _become_nobody(home: Path) -> None:
    """Give up root, where that is possible; the scratch directory goes along."""
    if os.geteuid() != 0:
        return
    with contextlib.suppress(OSError):  # a container may have taken this right from its root
        os.setgroups([])
        os.setgid(NOBODY)
        os.chown(home, NOBODY, NOBODY)
        os.setuid(NOBODY)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


if __name__ == "__main__":
    main()
