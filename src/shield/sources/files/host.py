"""The process that children are forked from: `python -I -m shield.sources.files.host <pid of its parent>`.

It loads the heavy libraries once, on nobody's data, and forks one child for each document. Standard input is a socket to
its parent: a request comes with the descriptor of a second socket, over which the child gets the document and answers. The
host only forks, waits and reports how the child ended. Messages are JSON, in both directions; nothing is unpickled.

A child has its own session, limits on memory, processor time, files and descriptors, no descriptor but its socket, no
environment, a temporary directory as home, and, where the kernel allows, no network. The host dies with its parent (signal
and end of file), a child with the host: whatever is killed with -9, nothing stays behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from shield.errors import ConversionCrashed, DocumentBomb
from shield.sources.files import child
from shield.sources.files.wire import DATA_FD, EXIT_BROKEN, EXIT_MEMORY, receive, send

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000
MAX_FILES = 64
MAX_FILE_BYTES = 256 * 1024 * 1024


def main() -> None:
    """Serve requests until the parent closes its end or dies."""
    parent = int(sys.argv[1])
    _cut_network()
    _die_with(parent)
    with contextlib.suppress(OSError):  # if memory runs out, a conversion goes before the server does
        Path("/proc/self/oom_score_adj").write_text("900", encoding="ascii")
    control = socket.socket(fileno=0)
    loaded: dict[str | None, child.Prepared] = {None: child.Prepared()}
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 65536, 1)
        if not message or not descriptors:
            return
        order = json.loads(message)
        library = order["library"]
        if library not in loaded:
            try:
                loaded[library] = child.prepare(library)
            except Exception as error:  # noqa: BLE001 - the process boundary: the parent reports it
                control.send(json.dumps({"failed": type(error).__name__}).encode())
                return
            gc.collect()
            gc.freeze()  # pages that hold only code and caches stay shared with the children
        _serve(control, descriptors[0], order, loaded[library])


def _serve(control: socket.socket, data: int, order: dict[str, Any], prepared: child.Prepared) -> None:
    host = os.getpid()
    pid = os.fork()
    if pid == 0:
        _child(host, data, order, prepared)
    os.close(data)
    ended = os.pidfd_open(pid)
    control.send(json.dumps({"pid": pid}).encode())
    watch = select.poll()
    watch.register(ended, select.POLLIN)
    watch.register(control, select.POLLIN)
    ready = {descriptor for descriptor, _ in watch.poll()}
    os.close(ended)
    if control.fileno() in ready:  # the parent gave up or is gone; it says nothing else while a child runs
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        sys.exit(0)
    _, status, usage = os.wait4(pid, 0)
    control.send(json.dumps({"status": os.waitstatus_to_exitcode(status), "peak": usage.ru_maxrss * 1024}).encode())


def _child(host: int, data: int, order: dict[str, Any], prepared: child.Prepared) -> NoReturn:
    status = EXIT_BROKEN
    try:
        os.setsid()
        _die_with(host)
        _libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        channel = _only_descriptor(data)
        _settle(Path(order["home"]))
        _limit(order)
        status = _work(channel, order, prepared)
    finally:
        os._exit(status)


def _work(channel: socket.socket, order: dict[str, Any], prepared: child.Prepared) -> int:
    def pages(count: int) -> None:
        seconds = 2 * (order["seconds"] + count)  # threads add up their processor time
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        send(channel, {"pages": count})

    try:
        request = json.loads(receive(channel))
        answer = child.perform(request, receive(channel), prepared, pages)
        send(channel, answer)
    except MemoryError:
        return EXIT_MEMORY
    except RecursionError:
        send(channel, {"error": DocumentBomb.code, "message": None, "details": {}})
    except Exception as error:  # noqa: BLE001 - the process boundary: whatever a library throws is this document's outcome
        send(channel, {"error": ConversionCrashed.code, "message": None, "details": {"cause": type(error).__name__}})
    return 0


def _only_descriptor(data: int) -> socket.socket:
    """Keep the data socket and nothing else; standard streams lead nowhere."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(data, DATA_FD)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    for entry in list(Path("/proc/self/fd").iterdir()):
        if int(entry.name) > DATA_FD:
            with contextlib.suppress(OSError):  # the listing's own descriptor is in the list
                os.close(int(entry.name))
    return socket.socket(fileno=DATA_FD)


def _settle(home: Path) -> None:
    os.environ.clear()
    os.environ.update(HOME=str(home), TMPDIR=str(home), CRAWL4_AI_BASE_DIRECTORY=str(home))
    tempfile.tempdir = str(home)
    os.chdir(home)
    os.umask(0o077)


def _limit(order: dict[str, Any]) -> None:
    seconds = 2 * order["seconds"]
    resource.setrlimit(resource.RLIMIT_AS, (order["memory"], order["memory"]))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_FILES, MAX_FILES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _die_with(parent: int) -> None:
    """Be killed when the parent ends; and end now if it has ended before we could say so."""
    _libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(EXIT_BROKEN)


def _cut_network() -> None:
    """Move into a network namespace without interfaces: as root, or inside a user namespace where that is allowed."""
    libc = _libc()
    if libc.unshare(CLONE_NEWNET) != 0:
        libc.unshare(CLONE_NEWUSER | CLONE_NEWNET)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


if __name__ == "__main__":
    main()
