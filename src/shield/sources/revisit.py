"""What earlier crawls of a knowledge base know about a page: the rows of `web_pages`.

A page that gave a document is remembered with its validators, the hash of what was sent, and its links. A later crawl asks the
site whether that still holds; while the document is live in the very revision that the page gave, and the recipe (converter,
chunker, model, metadata, scope, globs) is the same, an unchanged page keeps its document and lends its links, and nothing is
converted or embedded. A row is written in the transaction that ends its page, and only beside a document that is not being
deleted; the deletion of a document removes its rows. A page reached by redirects is remembered under both addresses.

`gone` says which documents the site has no more. It answers only after a crawl that saw everything: otherwise `CrawlIncomplete`
names what was missing, because a document that was merely not reached must never be taken for one that is gone. Two things say
that a page is gone: it answered 404 or 410, or a crawl from the same start page, within the scope and globs of this one, no longer
came to its address. Documents that something else has written since are left alone.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import and_, exists, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shield.database.engine import database_errors
from shield.database.tables import crawl_pages, documents, web_pages
from shield.errors import CrawlIncomplete, PageDuplicate, PageExcluded, PageHttpError, PageNotFound, leaf_errors
from shield.sources.exchange import Validators
from shield.sources.fetch import Fetched
from shield.sources.frontier import DONE, FAILED, FETCHED, QUEUED, SITEMAP, SKIPPED, Content

NOT_MODIFIED = 304


@dataclass(frozen=True)
class Known:
    """A page as an earlier crawl left it."""

    final_url: str
    document_id: UUID
    revision: int
    etag: str | None
    last_modified: str | None
    body_hash: str | None
    content: Content

    @property
    def document(self) -> tuple[UUID, int]:
        """The document that it gave, and its revision."""
        return self.document_id, self.revision

    @property
    def validators(self) -> Validators | None:
        """What to ask the site; None if it gave nothing to ask with."""
        asked = Validators(self.final_url, self.etag, self.last_modified)
        return asked if asked.headers() else None

    def holds(self, fetched: Fetched) -> bool:
        """Whether the page is as it was."""
        if fetched.final_url != self.final_url:
            return False
        return fetched.status == NOT_MODIFIED or (self.body_hash is not None and body_hash(fetched) == self.body_hash)


@dataclass(frozen=True)
class Gone:
    """A document whose page the site has no more."""

    document_id: UUID
    source: str
    not_found: bool
    """The page answered 404 or 410; otherwise nothing leads to it any more."""


class Revisits:
    """What one crawl knows from earlier ones, and leaves to later ones."""

    def __init__(self, engine: AsyncEngine, kb: UUID, job_id: UUID, *, start: str, recipe: str) -> None:
        self._engine = engine
        self._kb = kb
        self._job_id = job_id
        self._start = start
        self._recipe = recipe

    async def known(self, url: str) -> Known | None:
        """The page at the canonical `url`, if all that was made of it still holds should it be unchanged."""
        w, d = web_pages, documents
        live = and_(d.c.id == w.c.document_id, d.c.live_revision == w.c.revision, ~d.c.deleting)
        query = select(w).join(d, live).where(w.c.knowledge_base_id == self._kb, w.c.url == url, w.c.recipe == self._recipe)
        async with self._connection() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        content = Content(row.links, canonical=row.canonical, text_hash=row.text_hash)
        return Known(row.final_url, row.document_id, row.revision, row.etag, row.last_modified, row.body_hash, content)

    async def remember(
        self, connection: AsyncConnection, fetched: Fetched, content: Content, document: tuple[UUID, int], known: Known | None
    ) -> None:
        """Write down a page and the document (id, revision) that it gave; `known` is what it was held against."""
        document_id, revision = document
        present = select(documents.c.id).where(documents.c.id == document_id, ~documents.c.deleting).with_for_update(read=True)
        if (await connection.execute(present)).first() is None:
            return
        same = known if known is not None and fetched.status == NOT_MODIFIED else None
        values = {
            "final_url": fetched.final_url,
            "document_id": document_id,
            "revision": revision,
            "start": self._start,
            "etag": fetched.etag or (same.etag if same else None),
            "last_modified": fetched.last_modified or (same.last_modified if same else None),
            "body_hash": same.body_hash if same else body_hash(fetched),
            "recipe": self._recipe,
            "canonical": content.canonical,
            "text_hash": content.text_hash,
            "links": list(content.links),
            "job_id": self._job_id,
            "fetched_at": fetched.fetched_at,
        }
        if content.cut:  # its links are not all here: it must be read anew
            values |= {"etag": None, "last_modified": None, "body_hash": None}
        for url in sorted({fetched.url, fetched.final_url}):
            row = insert(web_pages).values(knowledge_base_id=self._kb, url=url, **values)
            await connection.execute(row.on_conflict_do_update(index_elements=["knowledge_base_id", "url"], set_=values))

    # -- what is gone -------------------------------------------------------------------------------------------------

    async def gone(self, in_scope: Callable[[str], bool], *, max_rows: int) -> list[Gone]:
        """The documents that the site has no more, in order of their addresses; call it when the crawl has ended.

        Raises:
            CrawlIncomplete: the crawl did not see everything; the message says why.
        """
        async with self._connection() as connection:
            why = await self._missing(connection, max_rows)
            if why is not None:
                raise CrawlIncomplete(f"No document was removed, because the crawl did not see the whole site: {why}.")
            return await self._gone(connection, in_scope)

    async def _missing(self, connection: AsyncConnection, max_rows: int) -> str | None:
        """What kept the crawl from seeing everything; None if nothing did."""
        p = crawl_pages
        mine = p.c.job_id == self._job_id
        earlier = web_pages.alias()
        was_read = exists().where(earlier.c.knowledge_base_id == self._kb, earlier.c.url == p.c.url)
        temporary = [code for code, leaf in leaf_errors().items() if leaf.retryable]
        broken = and_(p.c.code == PageHttpError.code, func.coalesce(p.c.status_code, 500) >= 500)
        expected = [PageNotFound.code, PageDuplicate.code, PageExcluded.code]
        unread = and_(p.c.state.in_([FAILED, SKIPPED]), p.c.depth > SITEMAP)
        checks = [
            ("max_pages was used up before all pages were requested", p.c.state.in_([QUEUED, FETCHED])),
            ("its start page gave nothing", and_(p.c.number == 1, p.c.state != DONE)),
            ("a sitemap could not be read", and_(p.c.depth == SITEMAP, p.c.state != DONE)),
            ("a page failed in a way that may pass", and_(unread, or_(p.c.code.in_(temporary), broken))),
            ("a page that was read before gave nothing", and_(unread, p.c.code.not_in(expected), was_read)),
            ("more links or sitemap entries were found than are followed", p.c.cut),
        ]
        for why, condition in checks:
            row = (await connection.execute(select(p.c.url).where(mine, condition).order_by(p.c.number).limit(1))).first()
            if row is not None:
                return f"{why} ({row.url})"
        rows = (await connection.execute(select(func.count()).where(mine))).scalar_one()
        return "it found more addresses than it can remember" if rows >= max_rows else None

    async def _gone(self, connection: AsyncConnection, in_scope: Callable[[str], bool]) -> list[Gone]:
        p, w, d = crawl_pages, web_pages, documents
        mine = p.c.job_id == self._job_id
        its = and_(w.c.knowledge_base_id == self._kb, w.c.document_id == d.c.id)
        reached = exists().where(mine, p.c.state == DONE, p.c.final_url == d.c.source)
        not_found = exists().where(its, mine, p.c.url == w.c.url, p.c.code == PageNotFound.code, p.c.depth > SITEMAP)
        left = exists().where(its, w.c.start == self._start)
        own = exists().where(its, w.c.revision == d.c.live_revision)  # nothing else has written it since
        query = (
            select(d.c.id, d.c.source, not_found.label("not_found"))
            .where(d.c.knowledge_base_id == self._kb, or_(own, d.c.deleting), ~reached, or_(not_found, left))
            .order_by(d.c.source.collate("C"))
        )
        rows = (await connection.execute(query)).all()
        found = [Gone(row.id, row.source, row.not_found) for row in rows]
        return await asyncio.to_thread(_within, found, in_scope)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection]:
        with database_errors():
            async with self._engine.connect() as connection:
                yield connection


def _within(found: Sequence[Gone], in_scope: Callable[[str], bool]) -> list[Gone]:
    return [one for one in found if one.not_found or in_scope(one.source)]


def body_hash(fetched: Fetched) -> str:
    """What decides what a page is turned into, its address apart."""
    head = f"{fetched.content_type}\n{fetched.charset or ''}\n".encode()
    return hashlib.sha256(head + fetched.body).hexdigest()
