"""Where a backup lies: a file that appears whole and readable for its owner only, or an object in S3.

`AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID` and the other usual variables say which object store is meant and who we are; on AWS
a pod's role does. Nothing that exists is overwritten, and a backup that fails leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from shield.errors import BackupPlaceRefused, BackupPlaceUnavailable
from shield.settings import BackupSettings, MiB

if TYPE_CHECKING:
    from obstore.store import S3Store

_BLOCK = 1 * MiB
_RETRIES = 5
_CONNECT = timedelta(seconds=5)
_LATELY = timedelta(seconds=60)  # how long the object store may be asked again


class Place(Protocol):
    """Where a backup is written to or read from."""

    async def write(self, chunks: AsyncIterator[bytes]) -> None:
        """Store all of it, or nothing.

        Raises:
            BackupPlaceRefused: something is there already, or we may not.
            BackupPlaceUnavailable: the store does not answer.
        """

    def read(self) -> AsyncIterator[bytes]:
        """Its bytes from the beginning.

        Raises:
            BackupPlaceRefused: there is nothing, or we may not.
            BackupPlaceUnavailable: the store does not answer.
        """


def place_of(address: str, settings: BackupSettings) -> Place:
    """The place that a command names: a path, or `s3://bucket/key`.

    Raises:
        BackupPlaceRefused: it is neither.
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", address)
    if scheme is None:
        if address in {"", "-"}:
            raise BackupPlaceRefused("A backup goes to a file or an object, never to a stream.")
        return LocalFile(Path(address))
    named = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/([^?#\s]+)", address)
    if named is None or any(part in {"", ".", ".."} for part in named[2].split("/")):
        raise BackupPlaceRefused("Write the place as a path, or as s3://bucket/key.")
    return S3Object(named[1], named[2], settings)


class LocalFile:
    """A file, mode 0600 from its first byte; it gets its name when it is complete and on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def write(self, chunks: AsyncIterator[bytes]) -> None:
        """See `Place`."""
        with _reasons(self._path):
            if self._path.is_symlink() or self._path.exists():
                raise BackupPlaceRefused(f"{self._path} exists already.")
            draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}.part")
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                async for chunk in chunks:
                    await asyncio.to_thread(_write, descriptor, chunk)
                await asyncio.to_thread(os.fsync, descriptor)
                draft.rename(self._path)
                await asyncio.to_thread(_sync_folder, self._path.parent)
            finally:
                os.close(descriptor)
                with suppress(FileNotFoundError):
                    draft.unlink()

    async def read(self) -> AsyncIterator[bytes]:
        """See `Place`."""
        with _reasons(self._path):
            if not self._path.is_file():
                raise BackupPlaceRefused(f"{self._path} is no file.")
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while block := await asyncio.to_thread(os.read, descriptor, _BLOCK):
                yield block
        finally:
            os.close(descriptor)


class S3Object:
    """An object, uploaded in parts; it appears when all have arrived."""

    def __init__(self, bucket: str, key: str, settings: BackupSettings) -> None:
        self._bucket, self._key = bucket, key
        self._settings = settings

    def _store(self) -> S3Store:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store

        plain = os.environ.get("AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT", "")).startswith("http://")
        try:
            return S3Store(
                self._bucket,
                client_options={"timeout": self._settings.timeout, "connect_timeout": _CONNECT, "allow_http": plain},
                retry_config={"max_retries": _RETRIES, "retry_timeout": _LATELY},
            )
        except BaseError as error:
            raise BackupPlaceRefused("The AWS_* variables do not say which object store, or who we are.") from error

    async def write(self, chunks: AsyncIterator[bytes]) -> None:
        """See `Place`."""
        import obstore

        store = self._store()
        failed: list[BaseException] = []

        async def watched() -> AsyncIterator[bytes]:
            try:
                async for chunk in chunks:
                    yield chunk
            except Exception as error:  # passes on, and is kept: the store wraps whatever its source raises
                failed.append(error)
                raise

        with self._reasons():
            with suppress(FileNotFoundError):
                await obstore.head_async(store, self._key)
                raise BackupPlaceRefused(f"{self._name} exists already.")
            try:
                await obstore.put_async(store, self._key, watched(), chunk_size=int(self._settings.chunk), max_concurrency=2)
            except Exception:  # what our own stream raised comes back as obstore's error, of no fixed type: the cause is told instead
                if failed:
                    raise failed[0] from None
                raise

    async def read(self) -> AsyncIterator[bytes]:
        """See `Place`."""
        import obstore

        with self._reasons():
            found = await obstore.get_async(self._store(), self._key)
            async for block in found.stream(min_chunk_size=_BLOCK):
                yield bytes(block)

    @property
    def _name(self) -> str:
        return f"s3://{self._bucket}/{self._key}"

    @contextmanager
    def _reasons(self) -> Iterator[None]:
        from obstore import exceptions as s3

        try:
            yield
        except FileNotFoundError as error:
            raise BackupPlaceRefused(f"{self._name} does not exist.") from error
        except (s3.UnauthenticatedError, s3.PermissionDeniedError) as error:
            raise BackupPlaceRefused(f"The object store does not let us use {self._name}.") from error
        except s3.BaseError as error:
            raise BackupPlaceUnavailable from error


@contextmanager
def _reasons(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackupPlaceRefused(f"{path} cannot be used: {error.strerror}.") from error


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
