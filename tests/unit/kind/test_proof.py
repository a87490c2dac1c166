"""The proof's eyes: what is new is found, what was there is not."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kind.proof import Seen, Snapshot, mounts, survivors
from kind.waiting import until

MOUNTS = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp/a tmpfs rw 0 0\n"


def test_only_what_is_new_counts() -> None:
    before = Snapshot(frozenset({"link lo", "link eth0", "setting kernel/panic = 0"}))
    after = Snapshot(frozenset({"link lo", "link shield0", "setting kernel/panic = 10"}))
    assert after.new_since(before) == ["link shield0", "setting kernel/panic = 10"]
    assert before.new_since(before) == []


def test_a_cluster_that_starts_meanwhile_does_not_count_and_our_own_remains_do() -> None:
    after = Snapshot(frozenset({"link shield1", "route 10.97.0.0/16 via 10.251.1.2 dev shield1", "link shield0"}))
    assert after.new_since(Snapshot(frozenset()), besides=frozenset({"shield1", "shield2"})) == ["link shield0"]


def test_a_second_mount_on_the_same_place_is_a_fact_of_its_own() -> None:
    once = mounts(MOUNTS)
    assert once == {"mount / (ext4) #1", "mount /tmp/a (tmpfs) #1"}
    assert mounts(MOUNTS + "tmpfs /tmp/a tmpfs rw 0 0\n") - once == {"mount /tmp/a (tmpfs) #2"}


@pytest.fixture
def process() -> Iterator[psutil.Process]:
    with subprocess.Popen(["sleep", "60"]) as child:
        yield psutil.Process(child.pid)
        child.kill()


def test_a_process_that_is_still_there_is_named(process: psutil.Process) -> None:
    seen = Seen(frozenset({(process.pid, process.create_time())}), frozenset())
    assert survivors(seen, ended=0) == [f"process {process.pid} sleep"]


def test_a_process_that_ended_and_was_not_taken_note_of_is_none() -> None:
    with subprocess.Popen(["true"]) as child:
        process = psutil.Process(child.pid)
        seen = Seen(frozenset({(process.pid, process.create_time())}), frozenset({str(Path("/proc/self/ns/pid").readlink())}))
        until("the end", lambda: process.status() == psutil.STATUS_ZOMBIE, limit=5)
        assert not any(fact.startswith(f"process {process.pid} ") for fact in survivors(seen, ended=process.create_time() + 1))


def test_another_process_of_the_same_number_is_not_taken_for_it(process: psutil.Process) -> None:
    assert survivors(Seen(frozenset({(process.pid, process.create_time() - 60)}), frozenset()), ended=0) == []


def test_a_process_in_a_namespace_of_the_cluster_is_named(process: psutil.Process) -> None:
    namespace = str(Path(f"/proc/{process.pid}/ns/net").readlink())
    seen, began = Seen(frozenset(), frozenset({namespace})), process.create_time()
    assert f"process {process.pid} sleep" in survivors(seen, ended=began + 1)
    assert f"process {process.pid} sleep" not in survivors(seen, ended=began), "it began later: the number is that of another namespace"
