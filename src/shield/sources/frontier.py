"""The frontier: which pages a crawl knows, in which order, and what became of each; the rows of `crawl_pages`.

A page's number is given when it is discovered, in the order (depth, parent's number, link position), and pages are finished
strictly by number, so the numbers are the same however fast the requests end and wherever a run was killed. States go
`queued -> fetched -> done | failed | skipped`: `fetched` means that the answer is known and durable (the body, compressed, or
the error), but not yet handed over. A page and the links it brings become `done` and `queued` in one transaction, and so do the
start page and the pages that sitemaps list. A sitemap that could not be read has a row too, at depth -1: it is told, never counted.

Every write is one transaction that holds the job's fence: a run that lost its lease writes nothing. SQL lives only here.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import Message
from uuid import UUID

from sqlalchemy import ColumnElement, Text, Uuid, and_, any_, case, exists, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shield.database.engine import database_errors
from shield.database.fence import require_fence
from shield.database.tables import crawl_pages as pages
from shield.errors import PageDuplicate, ShieldError, from_code
from shield.sources.fetch import Fetched

QUEUED, FETCHED, DONE, SKIPPED, FAILED = "queued", "fetched", "done", "skipped", "failed"
SITEMAP = -1
"""The depth of sitemaps' rows."""
_BATCH = 1000


Remember = Callable[[AsyncConnection], Awaitable[None]]


@dataclass(frozen=True)
class Row:
    """A page still to be worked on."""

    number: int
    url: str
    depth: int
    fetched: bool
    """Its answer is stored already."""


@dataclass(frozen=True)
class Content:
    """What a page that was stored says, as far as a crawl cares."""

    links: Sequence[str] = ()
    """Canonical, in scope, in their order."""
    cut: bool = False
    """It has more links than a crawl follows."""
    canonical: str | None = None
    """The address it names as its own, if another."""
    text_hash: str | None = None


@dataclass(frozen=True)
class Answer:
    """What a page gave: its content, or the reason why there is none."""

    counted: bool
    fetched: Fetched | None = None
    error: ShieldError | None = None


class Frontier:
    """The pages of one run of one job."""

    def __init__(self, engine: AsyncEngine, job_id: UUID, fence: int, *, max_pages: int, max_queued: int) -> None:
        self._engine = engine
        self._job_id = job_id
        self._fence = fence
        self._max_rows = max_pages + max_queued

    async def begun(self) -> bool:
        """Whether an earlier run queued the start page, or a retry adopted one."""
        async with self._read() as connection:
            return (await connection.execute(select(pages.c.number).where(self._mine()).limit(1))).first() is not None

    async def unread(self) -> list[str]:
        """Sitemaps that the retried job could not read."""
        query = select(pages.c.url).where(self._mine(), pages.c.depth == SITEMAP, pages.c.state == QUEUED).order_by(pages.c.number)
        async with self._read() as connection:
            return list((await connection.execute(query)).scalars())

    async def begin(
        self, url: str, seeds: Sequence[str] = (), failures: Mapping[str, ShieldError] | None = None, *, cut: bool = False
    ) -> None:
        """Queue the start page, what sitemaps gave beside it, and tell which could not be read.

        With pages queued already, only the rest is added: a retry has read the sitemaps that failed before.
        """
        async with self._write() as connection:
            start = {"job_id": self._job_id, "number": 1, "url": url, "depth": 0}
            await connection.execute(insert(pages).values(start).on_conflict_do_nothing())
            if cut:
                await connection.execute(update(pages).where(self._page(1)).values(cut=True))
            last = (await connection.execute(select(func.max(pages.c.number)).where(self._mine()))).scalar_one()
            told = {name: (FETCHED, error.code, _storable(error.message)) for name, error in (failures or {}).items()}
            again = and_(self._mine(), pages.c.depth == SITEMAP, pages.c.state == QUEUED)
            for name in (await connection.execute(select(pages.c.url).where(again))).scalars().all():
                state, code, message = told.pop(name, (DONE, None, None))
                await connection.execute(update(pages).where(again, pages.c.url == name).values(state=state, code=code, message=message))
            found = {name: (SITEMAP, *how) for name, how in told.items()} | dict.fromkeys(seeds, (0, QUEUED, None, None))
            among = any_(literal(list(found), ARRAY(Text)))
            known = set((await connection.execute(select(pages.c.url).where(self._mine(), pages.c.url == among))).scalars())
            fresh = [(name, how) for name, how in found.items() if name not in known][: max(0, self._max_rows - last)]
            for at in range(0, len(fresh), _BATCH):
                rows = [
                    {
                        "job_id": self._job_id,
                        "number": last + i,
                        "url": name,
                        "depth": depth,
                        "state": state,
                        "code": code,
                        "message": message,
                    }
                    for i, (name, (depth, state, code, message)) in enumerate(fresh[at : at + _BATCH], start=at + 1)
                ]
                await connection.execute(insert(pages), rows)

    async def adopt(self, old_job: UUID) -> None:
        """Take over what an earlier job finished, unless this one has pages already: the rest is queued again, under its numbers."""
        kept = or_(pages.c.state == DONE, and_(pages.c.state == SKIPPED, pages.c.code == PageDuplicate.code))
        same = ["number", "url", "depth", "parent", "position"]
        told = ["status_code", "final_url", "content_type", "etag", "last_modified", "links", "canonical", "text_hash"]
        told += ["code", "message", "fetched_at"]
        mine = pages.alias()
        old = select(
            literal(self._job_id, Uuid),
            case((kept, pages.c.state), else_=QUEUED),
            and_(kept, pages.c.counted),
            and_(or_(kept, pages.c.number == 1), pages.c.cut),
            *(pages.c[name] for name in same),
            *(case((kept, pages.c[name])) for name in told),
        ).where(pages.c.job_id == old_job, ~exists().where(mine.c.job_id == self._job_id))
        async with self._write() as connection:
            await connection.execute(insert(pages).from_select(["job_id", "state", "counted", "cut", *same, *told], old))

    async def totals(self) -> tuple[int, int]:
        """How many pages are known, and how many count as requested."""
        query = select(func.count(), func.count().filter(pages.c.counted)).where(self._mine(), pages.c.depth > SITEMAP)
        async with self._read() as connection:
            found, counted = (await connection.execute(query)).one()
        return int(found), int(counted)

    async def next_level(self, *, budget_left: bool) -> list[Row]:
        """The unfinished pages of the lowest depth that has any, by number. Without budget only stored answers are work."""
        open_states = [FETCHED, QUEUED] if budget_left else [FETCHED]
        work = and_(self._mine(), pages.c.state.in_(open_states))
        lowest = select(func.min(pages.c.depth)).where(work).scalar_subquery()
        query = select(pages.c.number, pages.c.url, pages.c.depth, pages.c.state).where(work, pages.c.depth == lowest)
        async with self._read() as connection:
            rows = await connection.execute(query.order_by(pages.c.number))
            return [Row(r.number, r.url, r.depth, r.state == FETCHED) for r in rows]

    async def reached_above(self, depth: int) -> frozenset[str]:
        """Addresses at which redirects of shallower pages ended: a queued page of that address needs no request."""
        query = select(pages.c.final_url).where(self._mine(), pages.c.depth < depth, pages.c.final_url != pages.c.url)
        async with self._read() as connection:
            return frozenset((await connection.execute(query)).scalars())

    async def store(self, number: int, answer: Answer) -> None:
        """Make a page's answer durable; from now on it is not requested again."""
        values: dict[str, object] = {"state": FETCHED, "counted": answer.counted, "fetched_at": func.now()}
        if answer.fetched is not None:
            got = answer.fetched
            values |= {
                "status_code": got.status,
                "final_url": got.final_url,
                "content_type": _join_type(got.content_type, got.charset),
                "etag": got.etag,
                "last_modified": got.last_modified,
                "body": await asyncio.to_thread(zlib.compress, got.body, 6),
            }
        if answer.error is not None:
            values |= {
                "code": answer.error.code,
                "message": _storable(answer.error.message),
                "status_code": answer.error.details.get("status"),
            }
        async with self._write() as connection:
            await connection.execute(update(pages).where(self._page(number), pages.c.state == QUEUED).values(values))

    async def load(self, number: int) -> Answer:
        """A stored answer, or `PageDuplicate` if a lower-numbered page led to the same address.

        One path for a run that just stored it and for a later one.
        """
        other = pages.alias()
        same = and_(other.c.job_id == self._job_id, other.c.number < number, other.c.final_url == pages.c.final_url)
        query = select(pages, exists().where(same).label("twin")).where(self._page(number))
        async with self._read() as connection:
            row = (await connection.execute(query)).one()
        if row.code is not None:
            known = {} if row.status_code is None else {"status": row.status_code}
            return Answer(row.counted, error=from_code(row.code, row.message, **known))
        if row.twin:
            return Answer(row.counted, error=PageDuplicate())
        kind, charset = _split_type(row.content_type or "")
        fetched = Fetched(
            url=row.url,
            final_url=row.final_url,
            status=row.status_code,
            content_type=kind,
            charset=charset,
            body=await asyncio.to_thread(zlib.decompress, row.body),
            etag=row.etag,
            last_modified=row.last_modified,
            fetched_at=row.fetched_at,
        )
        return Answer(row.counted, fetched=fetched)

    async def finish(self, number: int, state: str, error: ShieldError | None = None) -> None:
        """End a page that brings no links; its body is erased."""
        values: dict[str, object] = {"state": state, "body": None}
        if error is not None:
            values |= {"code": error.code, "message": _storable(error.message)}
        async with self._write() as connection:
            await connection.execute(update(pages).where(self._page(number), pages.c.state == FETCHED).values(values))

    async def twin(self, number: int, final_url: str, content: Content) -> bool:
        """Whether a lower-numbered page says the same, and one of the two names the other, or both the same, as its canonical address."""
        if content.text_hash is None:
            return False
        other = [pages.c.final_url, pages.c.canonical] if content.canonical else []
        names = or_(pages.c.canonical == final_url, *(column == content.canonical for column in other))
        same = and_(self._mine(), pages.c.number < number, pages.c.state == DONE, pages.c.text_hash == content.text_hash, names)
        async with self._read() as connection:
            return (await connection.execute(select(pages.c.number).where(same).limit(1))).first() is not None

    async def done(self, number: int, content: Content, *, follow: bool, remember: Remember | None = None) -> int:
        """End a page, erase its body, keep its links and queue the new ones among them; how many were new.

        `remember` writes in the same transaction.
        """
        ended = {"state": DONE, "body": None, "links": list(content.links), "canonical": content.canonical, "text_hash": content.text_hash}
        async with self._write() as connection:
            moved = update(pages).where(self._page(number), pages.c.state == FETCHED)
            cut = or_(pages.c.cut, literal(content.cut))
            depth = (await connection.execute(moved.values(**ended, cut=cut).returning(pages.c.depth))).scalar_one()
            if remember is not None:
                await remember(connection)
            return await self._queue(connection, number, depth + 1, content.links) if follow and content.links else 0

    async def _queue(self, connection: AsyncConnection, parent: int, depth: int, links: Sequence[str]) -> int:
        among = any_(literal(list(links), ARRAY(Text)))
        urls = select(pages.c.url).where(self._mine(), pages.c.url == among)
        # Only redirects of pages up to the parent: what later ones of its level found out depends on how fast they were.
        reached = select(pages.c.final_url).where(self._mine(), pages.c.number <= parent, pages.c.final_url == among)
        known = set((await connection.execute(urls.union(reached))).scalars())
        last = (await connection.execute(select(func.max(pages.c.number)).where(self._mine()))).scalar_one()
        fresh = [(position, url) for position, url in enumerate(links) if url not in known]
        rows = [
            {"job_id": self._job_id, "number": last + i, "url": url, "depth": depth, "parent": parent, "position": position}
            for i, (position, url) in enumerate(fresh[: max(0, self._max_rows - last)], start=1)
        ]
        if rows:
            await connection.execute(insert(pages), rows)
        return len(rows)

    def _mine(self) -> ColumnElement[bool]:
        return pages.c.job_id == self._job_id

    def _page(self, number: int) -> ColumnElement[bool]:
        return and_(pages.c.job_id == self._job_id, pages.c.number == number)

    @asynccontextmanager
    async def _read(self) -> AsyncIterator[AsyncConnection]:
        with database_errors():
            async with self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def _write(self) -> AsyncIterator[AsyncConnection]:
        """One transaction of the run that owns the job.

        Raises:
            LeaseLost: another run owns it, or the job has ended; nothing was written.
        """
        with database_errors():
            async with self._engine.begin() as connection:
                await require_fence(connection, self._job_id, self._fence)
                yield connection


def _storable(message: str) -> str:
    """The message as PostgreSQL takes it: no NUL, no lone surrogates, no novel."""
    return message.encode("utf-8", "replace").decode("utf-8").replace("\0", "")[:1000]


def _join_type(kind: str, charset: str | None) -> str:
    return f"{kind}; charset={charset}" if charset else kind


def _split_type(value: str) -> tuple[str, str | None]:
    message = Message()
    message["Content-Type"] = value
    charset = message.get_param("charset")
    return value.split(";", 1)[0].strip(), charset if isinstance(charset, str) else None
