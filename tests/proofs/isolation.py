"""Nobody sees what is another's: every route and every tool, called by everybody, with what exists and with what does not.

The cases are one a route and tool (`isolation_cases.py`), the callers and what they show stand in `isolation_world.py`. A leak is: an answer
that holds anything of the owner's; one that differs between a thing of the owner's and a thing that does not exist; a call that should
have been refused and was not; a refusal without its form. That those who may are let in is checked too, or all of it would prove nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import httpx

from shield.auth import Principal
from shield.database.embedded import EmbeddedPostgres, prepare
from shield.errors import leaf_errors
from shield.settings import load
from shield.telemetry.logs import configure
from tests.proofs.harness import data_directory
from tests.proofs.isolation_cases import ROUTES, TOOLS, Case, Kind, routes_of
from tests.proofs.isolation_world import ELSEWHERE, MARK, VAULT, Mode, Target, World, world

_LIMIT = 64 * 1024  # of an answer that is looked at
_VARYING = re.compile(r'"instance":"[^"]*"|"correlation_id":"[^"]*"')
_MCP_HEADERS = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}


@dataclass(frozen=True)
class Answer:
    """What came back; `status` of a tool is that of its error, or 200."""

    status: int
    body: str
    headers: httpx.Headers
    sent: str

    def code(self) -> str:
        """The code of a refusal."""
        found = re.search(r'\\?"code\\?":\s*\\?"([a-z_.]+)', self.body)
        return found[1] if found else ""

    def without(self, target: Target) -> tuple[int, str]:
        """Status and body, but for what was sent and what differs each time."""
        body = _VARYING.sub("", self.body)
        for value in target.values():
            body = body.replace(value, "X")
        return self.status, body


@dataclass
class Report:
    """Counts, and what went wrong."""

    requests: int = 0
    leaks: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def note(self, what: str, *, good: bool) -> None:
        """Count a finding."""
        if not good:
            self.leaks.append(what)


@dataclass
class Questioner:
    """Calls everything as everybody."""

    world: World
    report: Report
    names: frozenset[str] | None = None
    """Only these routes and tools; None = all."""

    async def everybody(self, only: Iterable[str] | None = None) -> None:
        """All callers, those who may come last; `only` some of `other`, `reader`, `bad`, `owner`."""
        chosen = set(only or ("bad", "other", "reader", "owner"))
        for name, case in self._cases():
            if "bad" in chosen:
                for who in self.world.bad:
                    await self._refused(name, case, who)
            if "other" in chosen:
                await self._stranger(name, case, "other")
            if "reader" in chosen:
                await self._stranger(name, case, "reader")
        if "owner" in chosen:
            for name, case in sorted(self._cases(), key=lambda item: item[1].spoils):
                await self._control(name, case)

    def _cases(self) -> Iterator[tuple[str, Case]]:
        served = routes_of(self.world.app) | routes_of(self.world.mcp_app)
        routes = ((name, case) for name, case in ROUTES.items() if name in served and case.kind is not Kind.MCP)
        yield from ((name, case) for name, case in (*routes, *TOOLS.items()) if self.names is None or name in self.names)

    # -- what each caller must meet -----------------------------------------------------------------------------------

    async def _refused(self, name: str, case: Case, who: str) -> None:
        """Someone whose credential does not count."""
        answer = await self._call(name, case, self.world.bad[who], self.world.target)
        self._holds_nothing(name, who, answer)
        if case.kind is Kind.PUBLIC:
            self.report.note(f"{name}: {who} got {answer.status}", good=answer.status not in (401, 403))
        elif case.kind is Kind.TOKEN:
            await self._same(name, case, who, self.world.bad[who], answer, (self.world.target, Target.phantom()))
        elif not (case.kind is Kind.INTERNAL and who == "hop token that only asks"):  # what that one is for
            good = answer.status == 401 and answer.code().startswith("auth.")
            good &= case.kind is Kind.INTERNAL or answer.headers.get("www-authenticate", "").startswith("Bearer ")
            self.report.note(f"{name}: {who} got {answer.status} {answer.code()} instead of a 401", good=good)

    async def _stranger(self, name: str, case: Case, who: str) -> None:
        """Someone with a good credential, and no right to what is the owner's (or, `reader`, to change it)."""
        credential, target = self.world.credentials[who], self.world.target
        may_read = who == "reader" and case.kind is Kind.GRANTED and case.reads
        answer = await self._call(name, case, credential, target)
        if may_read:
            self.report.note(f"{name}: {who} got {answer.status} though he may", good=answer.status == 200)
            return
        self._holds_nothing(name, who, answer, granted=who == "reader")
        forbidden = case.kind is Kind.ADMIN or (who == "reader" and not case.reads)
        if case.kind in (Kind.GRANTED, Kind.OWNED, Kind.ADMIN, Kind.TOKEN):
            wanted = {403} if case.kind is Kind.ADMIN else {403, 404} if forbidden else {404}
            self.report.note(f"{name}: {who} got {answer.status} instead of {wanted}", good=answer.status in wanted)
            await self._same(name, case, who, credential, answer, (target, Target.phantom()))
        elif case.kind is Kind.OWN:
            good = answer.status == 403 if forbidden else answer.status < 300
            self.report.note(f"{name}: {who} got {answer.status}", good=good)
        elif case.kind is Kind.INTERNAL:
            self.report.note(f"{name}: {who} got {answer.status}", good=answer.status == 401)
        if case.kind is Kind.GRANTED and who == "other":  # the owner's things, looked for in a base of one's own
            sideways = await self._call(name, case, credential, target.in_base(ELSEWHERE))
            self._holds_nothing(name, f"{who} sideways", sideways)
            pair = (target.in_base(ELSEWHERE), Target.phantom(ELSEWHERE))
            await self._same(name, case, f"{who} sideways", credential, sideways, pair, bodies=False)

    async def _control(self, name: str, case: Case) -> None:
        """Those who may: the request is a good one."""
        if case.kind in (Kind.PUBLIC, Kind.TOKEN, Kind.INTERNAL):
            return
        who = "admin" if case.kind is Kind.ADMIN else "owner"
        answer = await self._call(name, case, self.world.credentials[who], self.world.target)
        gone = case.spoils and answer.status in (404, 409)  # its twin among the tools came first
        self.report.note(f"{name}: {who} got {answer.status} {answer.body[:200]}", good=gone or answer.status in (200, 201, 202, 409, 503))

    async def _same(
        self, name: str, case: Case, who: str, credential: str | None, answer: Answer, pair: tuple[Target, Target], *, bodies: bool = True
    ) -> None:
        """What exists (`answer` to the first of the pair) and what does not get one answer."""
        real, phantom = pair
        one, two = answer.without(real), (await self._call(name, case, credential, phantom)).without(phantom)
        same = one == two if bodies else one[0] == two[0]
        self.report.note(f"{name}: {who} can tell what exists: {one} / {two}", good=same)

    def _holds_nothing(self, name: str, who: str, answer: Answer, *, granted: bool = False) -> None:
        """No word, name or id of the owner's that the caller did not send; with `granted`, the base itself is no secret."""
        target = self.world.target
        secrets = {MARK, target.document, target.job, target.upload, target.announced, target.key} | (set() if granted else {VAULT})
        if granted and name in ("GET /knowledge-bases", "list_knowledge_bases"):
            secrets = {target.document, target.job}
        found = sorted(secret for secret in secrets if secret in answer.body and secret not in answer.sent)
        self.report.note(f"{name}: {who} got {found}", good=not found)

    # -- calling ------------------------------------------------------------------------------------------------------

    async def _call(self, name: str, case: Case, credential: str | None, target: Target) -> Answer:
        self.report.requests += 1
        headers = {"Authorization": f"Bearer {credential}"} if credential is not None else {}
        if name in TOOLS:
            return await self._tool(name, case.make(target), headers)
        method, _, path = name.partition(" ")
        places = {
            "job_id": target.job,
            "document_id": target.document,
            "upload_id": target.announced,
            "name": target.kb,
            "key_id": target.key,
            "namespace": "team-a",
        }
        url = path.format(code="job.not_found", **places)
        options = case.make(target)
        sent = url + str(options)
        async with self.world.api.stream(method, url, headers=headers, **options) as response:
            body = b""
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _LIMIT or url.endswith("/events"):
                    break
            return Answer(response.status_code, body.decode("utf-8", "replace"), response.headers, sent)

    async def _tool(self, name: str, arguments: dict[str, Any], headers: dict[str, str]) -> Answer:
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
        response = await self.world.mcp.post("/mcp", json=call, headers={**_MCP_HEADERS, **headers})
        text = response.text
        if response.status_code != 200:
            return Answer(response.status_code, text, response.headers, str(arguments))
        data = next(line[6:] for line in text.splitlines() if line.startswith("data: "))
        result = json.loads(data)["result"]
        code = (result.get("structuredContent") or {}).get("code") if result.get("isError") else None
        return Answer(leaf_errors()[code].status if code else 200, json.dumps(result), response.headers, str(arguments))


def missing_cases(world: World) -> list[str]:
    """Routes and tools without a case, and cases without a route or tool."""
    served = routes_of(world.app) | routes_of(world.mcp_app)
    optional = {name for name in ROUTES if "/.well-known/" in name}
    return sorted((served - set(ROUTES)) | (set(ROUTES) - served - optional) | (world.tools ^ set(TOOLS)))


async def question(world: World, only: Iterable[str] | None = None, names: frozenset[str] | None = None) -> Report:
    """Everything by everybody, or some of it by some."""
    report = Report(missing=missing_cases(world))
    await Questioner(world, report, names).everybody(only)
    return report


async def prove(*, sabotage: bool) -> bool:
    """True if every route and tool has a case, and nothing leaks in any mode."""
    configure("console", "error")
    good = True
    modes: tuple[Mode, ...] = ("api-key",) if sabotage else ("api-key", "oidc")
    for mode in modes:
        async with data_directory() as directory:
            prepare(directory)
            settings = load(data_dir=directory, port=0, metrics_port=0)
            postgres = await asyncio.to_thread(EmbeddedPostgres(directory).start)
            try:
                broken = patch.object(Principal, "sees", lambda *_: True) if sabotage else contextlib.nullcontext()
                async with world(settings, postgres.dsn, mode) as found:
                    with broken:
                        report = await question(found)
            finally:
                await asyncio.to_thread(postgres.stop)
        callers = 4 + len(found.bad)
        print(f"{mode}: {len(ROUTES)} routes, {len(TOOLS)} tools, {callers} callers, {report.requests} requests, leaks {len(report.leaks)}")
        for line in [f"no case, or no route: {name}" for name in report.missing] + report.leaks[:20]:
            print(f"  {line}")
        good &= not report.leaks and not report.missing
    return good
