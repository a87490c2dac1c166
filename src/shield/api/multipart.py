"""One file out of a `multipart/form-data` body, as a stream.

FastAPI's own `UploadFile` spools the whole body to disk before the route runs. Here the parser runs over the body as it
arrives: `open_file` reads up to the headers of the part `file`, and `content` yields its bytes chunk by chunk. The iterator
ends well only if the body does (closing boundary, one file and no more), so a broken-off upload is never stored as whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from shield.errors import InvalidRequest, ShieldError
from shield.service.models import UploadCreate
from shield.settings import KiB

_MAX_OTHER = 64 * KiB  # bytes of all parts that are not the file
_MAX_PARTS = 20


@dataclass(frozen=True)
class FilePart:
    """The file: its announced name and type, and its bytes, to be read once."""

    filename: str
    mime: str | None
    content: AsyncIterator[bytes]


async def open_file(request: Request) -> FilePart:
    """Read up to the file.

    Raises:
        InvalidRequest: the body is no form, has no part `file`, or that part has no usable name.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidRequest("body: must be multipart/form-data with one part named `file`.")
    parts = _parts(request.stream(), boundary)
    announced = await anext(parts, None)
    if not isinstance(announced, UploadCreate):
        raise InvalidRequest("body.file: the part is missing.")
    return FilePart(announced.filename, announced.mime, _bytes(parts))


async def _bytes(parts: AsyncIterator[UploadCreate | bytes]) -> AsyncIterator[bytes]:
    async for item in parts:
        if isinstance(item, UploadCreate):
            raise InvalidRequest("body: holds more than one file.")
        yield item


async def _parts(body: AsyncIterator[bytes], boundary: bytes) -> AsyncIterator[UploadCreate | bytes]:
    form = _Form(boundary)
    async with aclosing(body) as chunks:  # type: ignore[type-var]  # Starlette's stream is an async generator
        async for chunk in chunks:
            form.feed(chunk)
            while form.found:
                yield form.found.popleft()
    if not form.ended:
        raise InvalidRequest("body: ends before its closing boundary.")


class _Form:
    """The parser's callbacks; `found` holds the file's announcement and then its bytes."""

    def __init__(self, boundary: bytes) -> None:
        self.found: deque[UploadCreate | bytes] = deque()
        self.ended = False
        self._in_file = False
        self._parts = 0
        self._other = 0
        self._headers: dict[bytes, bytes] = {}
        self._name = self._value = b""
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._header_name,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_end,
                    "on_part_data": self._data,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise InvalidRequest("body: the multipart boundary is too long.") from error

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidRequest("body: is not well-formed multipart/form-data.") from error

    def _begin(self) -> None:
        self._headers, self._in_file = {}, False
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise InvalidRequest(f"body: has more than {_MAX_PARTS} parts.")

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if options.get(b"name") == b"file":
            self._in_file = True
            self.found.append(_announced(options.get(b"filename", b""), self._headers.get(b"content-type")))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self.found.append(data[start:end])
            return
        self._other += end - start
        if self._other > _MAX_OTHER:
            raise InvalidRequest("body: fields other than `file` are too long.")

    def _end(self) -> None:
        self.ended = True


def _announced(filename: bytes, content_type: bytes | None) -> UploadCreate:
    """The file's name without any folder, and its type, within the limits of an announced upload."""
    try:
        name = filename.decode()
    except UnicodeDecodeError:
        name = filename.decode("latin-1")
    for escape, character in (("%22", '"'), ("%0D", " "), ("%0A", " ")):  # how browsers write them
        name = name.replace(escape, character)
    name = name.replace("\\", "/").rpartition("/")[2]
    problem: ShieldError = InvalidRequest("body.file: needs a file name of 1 to 255 printable characters.")
    if not name.isprintable():
        raise problem
    try:
        return UploadCreate(filename=name, mime=content_type.decode("latin-1") if content_type else None)
    except ValidationError as error:
        raise problem from error
