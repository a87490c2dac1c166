"""What only Edge promises: writes survive SIGKILL, shards come whole or not at all, few are open, damage is a typed error."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from shield.errors import DependencyUnavailable
from shield.knowledge.vectors.edge import EdgeIndex
from shield.knowledge.vectors.port import SpaceKey, SparseVector
from tests.contract.test_vectors import CORPUS, a_point, a_space, find, ordinals, the_corpus

WRITER = """
import asyncio, sys
from pathlib import Path
from uuid import UUID
import numpy as np
from shield.knowledge.vectors.edge import EdgeIndex
from shield.knowledge.vectors.port import Point, SpaceKey, SparseVector

async def main(directory, kb):
    index, space = EdgeIndex(Path(directory)), SpaceKey(UUID(kb), "model", 32)
    document = UUID(int=1)
    for number in range(10_000):
        vector, sparse = np.ones(32, dtype=np.float32), SparseVector((number,), (1.0,))
        await index.upsert(space, [Point(UUID(int=number), document, 1, number, vector, sparse)])
        if number % 5 == 4:
            await index.delete_document(space, document, keep_revision=1)
        print(number, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_what_was_written_before_a_sigkill_is_there_after_it(data_dir: Path) -> None:
    space = SpaceKey(uuid4(), "model", 32)
    for least in (5, 12):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(data_dir), str(space.knowledge_base_id)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        written = [int(process.stdout.readline()) for _ in range(least)]
        process.kill()
        written += map(int, process.communicate(timeout=20)[0].split())
        index = EdgeIndex(data_dir)
        assert {payload["ordinal"] for _, payload in [item async for item in index.scan(space)]} >= set(written)
        by_keyword = await index.search_hybrid(
            space, np.ones(32, dtype=np.float32), SparseVector((written[-1],), (1.0,)), limit=1, prefetch=50, rrf_k=1
        )
        assert ordinals(by_keyword) == [written[-1]]
        await index.close()


async def test_a_shard_is_found_again_after_closing(data_dir: Path) -> None:
    space = a_space()
    first = EdgeIndex(data_dir)
    await first.upsert(space, the_corpus())
    expected = await find(first, space, "pump fault")
    await first.close()
    second = EdgeIndex(data_dir)
    assert await find(second, space, "pump fault") == expected
    assert await second.count(space) == len(CORPUS)
    await second.close()


async def test_only_so_many_shards_are_open_and_a_closed_one_opens_again(data_dir: Path) -> None:
    index = EdgeIndex(data_dir, open_shards=2)
    spaces = [a_space() for _ in range(4)]
    for number, space in enumerate(spaces):
        await index.upsert(space, [a_point("pump", number)])
    assert len(index._open) == 2
    assert [ordinals(await find(index, space, "pump")) for space in spaces] == [[0], [1], [2], [3]]
    assert len(index._open) == 2
    await index.close()


async def test_what_a_crash_left_half_made_or_half_dropped_is_removed(data_dir: Path) -> None:
    space = a_space()
    for left in ("a.new", "b.old"):
        (data_dir / left / "segments").mkdir(parents=True)
    index = EdgeIndex(data_dir)
    await index.upsert(space, [a_point("pump")])
    assert sorted(path.suffix for path in data_dir.iterdir()) == [""]
    await index.drop(space)
    assert list(data_dir.iterdir()) == []
    await index.close()


async def test_a_damaged_shard_is_a_typed_error_and_the_others_go_on(data_dir: Path) -> None:
    broken, sound = a_space(), a_space()
    index = EdgeIndex(data_dir)
    for space in (broken, sound):
        await index.upsert(space, the_corpus())
    await index.close()
    (directory,) = [path for path in data_dir.iterdir() if path.name.startswith(str(broken.knowledge_base_id))]
    for file in directory.rglob("*.json"):
        file.write_bytes(b"\0" * 10)
    index = EdgeIndex(data_dir)
    with pytest.raises(DependencyUnavailable) as raised:
        await index.count(broken)
    assert str(data_dir) not in str(raised.value)
    assert await index.count(sound) == len(CORPUS)
    await index.drop(broken)
    assert await index.count(broken) == 0
    await index.upsert(broken, the_corpus())
    assert await index.count(broken) == len(CORPUS)
    await index.close()


async def test_a_second_process_is_refused_while_the_first_has_the_shard(data_dir: Path) -> None:
    space = a_space("model")
    index = EdgeIndex(data_dir)
    await index.upsert(space, [a_point("pump")])
    other = EdgeIndex(data_dir)
    with pytest.raises(DependencyUnavailable):
        await other.count(space)
    await index.close()
    await index.close()
    assert await other.count(space) == 1
    await other.close()


async def test_a_directory_that_cannot_be_written_fails_the_ping(data_dir: Path) -> None:
    (data_dir / "file").write_text("")
    index = EdgeIndex(data_dir / "file" / "vectors")
    with pytest.raises(DependencyUnavailable):
        await index.upsert(a_space(), [a_point("pump")])
    await index.close()


async def test_a_cancelled_write_leaves_the_index_usable(data_dir: Path) -> None:
    index, space = EdgeIndex(data_dir), a_space()
    write = asyncio.create_task(index.upsert(space, [a_point(f"word{i}", i) for i in range(2000)]))
    await asyncio.sleep(0)
    write.cancel()
    with pytest.raises(asyncio.CancelledError):
        await write
    await index.upsert(space, [a_point("pump", 5000)])
    assert 5000 in ordinals(await find(index, space, "pump"))
    await index.close()


async def test_the_event_loop_gets_its_turn_during_a_large_write(data_dir: Path) -> None:
    index, space = EdgeIndex(data_dir), a_space()
    point = a_point("a pump")
    points = [replace(point, id=uuid4(), ordinal=number) for number in range(1500)]
    ticks = 0
    write = asyncio.create_task(index.upsert(space, points))
    while not write.done():
        await asyncio.sleep(0)
        ticks += 1
    assert ticks > 5
    await index.close()
