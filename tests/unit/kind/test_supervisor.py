"""The first process: starts in order, waits for whom a component needs, reaps, and starts again with growing pauses."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from kind import node
from kind.node import Running, Supervisor
from kind.waiting import until


class FakeProcesses:
    """Process ids that end when a test says so, and a clock that it moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.started: list[str] = []
        self._ended: list[tuple[int, int]] = []

    def spawn(self, path: str, command: list[str], environment: dict[str, str], **_: object) -> int:
        self.started.append(path)
        return len(self.started)

    def end(self, pid: int, code: int = 1) -> None:
        self._ended.append((pid, code << 8))

    def wait(self, _pid: int, _options: int) -> tuple[int, int]:
        return self._ended.pop(0) if self._ended else (0, 0)


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeProcesses:
    fake = FakeProcesses()
    (tmp_path / "logs").mkdir()
    monkeypatch.setattr(node, "INSIDE", tmp_path)
    monkeypatch.setattr(node, "os", SimpleNamespace(**{**vars(os), "posix_spawn": fake.spawn, "waitpid": fake.wait}))
    monkeypatch.setattr(node, "time", SimpleNamespace(monotonic=lambda: fake.now, sleep=lambda _: None))
    return fake


def a_component(name: str = "etcd", after: str = "") -> Running:
    return Running(name, [f"/bin/{name}"], {}, after)


def a_round(supervisor: Supervisor) -> None:
    supervisor._reap()
    supervisor._start_again()


def test_a_component_that_ends_is_started_again_after_a_pause_that_grows(processes: FakeProcesses, tmp_path: Path) -> None:
    component = a_component()
    supervisor = Supervisor([component])
    supervisor._start(component)
    pauses = []
    for _ in range(6):
        processes.end(component.pid, 3)
        a_round(supervisor)
        assert component.pid == 0
        pauses.append(component.start_at - processes.now)
        processes.now = component.start_at
        a_round(supervisor)
        assert component.pid != 0
    assert pauses == [1, 2, 4, 8, 10, 10]
    report = json.loads((tmp_path / "components.json").read_text(encoding="utf-8"))
    assert report == [{"name": "etcd", "running": True, "restarts": 6, "last_exit": 3}]


def test_a_long_life_makes_the_next_pause_short_again(processes: FakeProcesses) -> None:
    component = a_component()
    supervisor = Supervisor([component])
    component.pause = 10
    supervisor._start(component)
    processes.now += 31
    processes.end(component.pid)
    a_round(supervisor)
    assert component.start_at - processes.now == 0.5


def test_orphans_of_pods_are_reaped_and_nothing_else_happens(processes: FakeProcesses) -> None:
    component = a_component()
    supervisor = Supervisor([component])
    supervisor._start(component)
    processes.end(4711)
    processes.end(4712)
    a_round(supervisor)
    assert component.pid == 1
    assert processes.started == ["/bin/etcd"]


def test_a_component_that_was_never_started_is_not_started_out_of_turn(processes: FakeProcesses) -> None:
    supervisor = Supervisor([a_component()])
    a_round(supervisor)
    assert processes.started == []


def test_gates_open_for_sockets_and_for_ports(tmp_path: Path) -> None:
    assert not node._open(str(tmp_path / "socket"))
    with socket.socket(socket.AF_UNIX) as local, socket.create_server(("127.0.0.1", 0)) as port:
        local.bind(str(tmp_path / "socket"))
        local.listen()
        assert node._open(str(tmp_path / "socket"))
        number = port.getsockname()[1]
        assert node._open(f"127.0.0.1:{number}")
    assert not node._open(f"127.0.0.1:{number}")


def test_children_start_with_no_signal_blocked_and_write_into_their_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "logs").mkdir()
    monkeypatch.setattr(node, "INSIDE", tmp_path)
    component = Running("mask", ["/bin/grep", "SigBlk", "/proc/self/status"], {}, "")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        Supervisor([component])._start(component)
        os.waitpid(component.pid, 0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    log = tmp_path / "logs" / "mask.log"
    until("the log", lambda: bool(log.read_text(encoding="utf-8")), limit=1)
    assert int(log.read_text(encoding="utf-8").split()[1], 16) == 0
    assert log.stat().st_mode & 0o777 == 0o600
