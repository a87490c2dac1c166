"""An object store that speaks as much S3 as a backup needs: HEAD, GET (with ranges), PUT, multipart uploads; path style.

A request without the header of an AWS signature gets 403; the signature itself is not checked. `fail` answers the next requests that it
names with a status, `stall` never answers them. What was begun and neither completed nor aborted stays visible in `unfinished`.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass
class S3Peer:
    """The store: objects by `bucket/key`."""

    objects: dict[str, bytes] = field(default_factory=dict)
    unfinished: dict[str, dict[int, bytes]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    fail: dict[str, list[int]] = field(default_factory=dict)
    """Statuses to answer next, by what the request is: `PUT`, `part`, `complete` ..."""
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Any request."""
        if not re.match(
            r"AWS4-HMAC-SHA256 Credential=.+, SignedHeaders=.+, Signature=[0-9a-f]{64}$", request.headers.get("Authorization", "")
        ):
            return _error(403, "AccessDenied")
        body = await request.read()
        if request.headers.get("x-amz-content-sha256") not in {None, "UNSIGNED-PAYLOAD", hashlib.sha256(body).hexdigest()}:
            return _error(400, "XAmzContentSHA256Mismatch")
        name = request.path.lstrip("/")
        what = _what(request)
        self.requests.append(what)
        if self.fail.get(what):
            return _error(self.fail[what].pop(0), "InternalError")
        upload = request.query.get("uploadId", "")
        match what:
            case "begin":
                upload = f"u{len(self.requests)}"
                self.unfinished[upload] = {}
                return _xml(f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>")
            case "part":
                self.unfinished[upload][int(request.query["partNumber"])] = body
                return web.Response(headers={"ETag": _etag(body)})
            case "complete":
                parts = self.unfinished.pop(upload)
                self.objects[name] = b"".join(parts[number] for number in sorted(parts))
                return _xml(f"<CompleteMultipartUploadResult><ETag>{_etag(self.objects[name])}</ETag></CompleteMultipartUploadResult>")
            case "abort":
                self.unfinished.pop(upload, None)
                return web.Response(status=204)
            case "PUT":
                self.objects[name] = body
                return web.Response(headers={"ETag": _etag(body)})
            case "GET" | "HEAD" if name in self.objects:
                return self._object(request, self.objects[name])
            case "GET" | "HEAD":
                return _error(404, "NoSuchKey")
        return _error(405, "MethodNotAllowed")

    @staticmethod
    def _object(request: web.Request, content: bytes) -> web.Response:
        headers = {"ETag": _etag(content), "Last-Modified": "Mon, 02 Nov 2026 00:00:00 GMT"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        if wanted is None:
            return web.Response(body=content, headers=headers)
        first, last = int(wanted[1]), int(wanted[2] or len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{min(last, len(content) - 1)}/{len(content)}"
        return web.Response(status=206, body=content[first : last + 1], headers=headers)


@asynccontextmanager
async def s3_peer() -> AsyncIterator[S3Peer]:
    """A running store on a free port of this machine."""
    peer = S3Peer()
    app = web.Application(client_max_size=64 * 1024**2)
    app.router.add_route("*", "/{name:.*}", peer.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        peer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield peer
    finally:
        await asyncio.shield(runner.cleanup())


def _what(request: web.Request) -> str:
    query = request.query
    if request.method == "POST":
        return "begin" if "uploads" in query else "complete"
    if "uploadId" in query:
        return {"PUT": "part", "DELETE": "abort"}.get(request.method, request.method)
    return request.method


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


def _xml(body: str) -> web.Response:
    return web.Response(text=f'<?xml version="1.0" encoding="UTF-8"?>{body}', content_type="application/xml")


def _error(status: int, code: str) -> web.Response:
    return web.Response(status=status, text=f"<Error><Code>{code}</Code><Message>{code}</Message></Error>", content_type="application/xml")
