"""The Kubernetes API, as much of it as we use: a port, and its adapter on `kubernetes.aio`.

Objects are plain JSON, unparsed beyond that: the generated models of the client cost more than everything else we do with an object. Every
answer that is no success is a typed error that says whether waiting helps; every request has a time limit. Nothing is retried here: the work
queue does that, with the whole reconcile.

`Fenced` lets writes through only while this process leads, so that one that was paused past its lease writes nothing when it wakes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client as kubernetes
from kubernetes.aio import config as kubeconfig
from pydantic_core import from_json

from shield_operator.names import GROUP, VERSION

Obj = dict[str, Any]
"""An object of the API, as JSON."""

_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_MERGE = "application/merge-patch+json"


class Key(NamedTuple):
    """An object's address within its kind."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Kind:
    """A resource of the API."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        """As in an object's `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Where it is served; without a namespace across all of them."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        return "/".join([root, *(("namespaces", namespace) if namespace else ()), self.plural, *filter(None, (name, subresource))])


INGESTJOBS = Kind(GROUP, VERSION, "ingestjobs", "IngestJob")
INGESTSCHEDULES = Kind(GROUP, VERSION, "ingestschedules", "IngestSchedule")
KNOWLEDGEBASES = Kind(GROUP, VERSION, "knowledgebases", "KnowledgeBase")
JOBS = Kind("batch", "v1", "jobs", "Job")
PODS = Kind("", "v1", "pods", "Pod")
CLAIMS = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
EVENTS = Kind("", "v1", "events", "Event")
LEASES = Kind("coordination.k8s.io", "v1", "leases", "Lease")


class ClusterError(Exception):
    """The API server refused, failed or did not answer."""

    cause: ClassVar[str] = "error"
    """A word for metrics: one of a fixed few."""

    def __init__(self, message: str, *, status: int = 0, reason: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class NotFound(ClusterError):
    """There is no such object."""

    cause = "not_found"


class AlreadyExists(ClusterError):
    """An object of that name is there already."""

    cause = "already_exists"


class Conflict(ClusterError):
    """The object changed meanwhile, or is another one of the same name."""

    cause = "conflict"


class Expired(ClusterError):
    """The place in a list is no longer known; begin again."""

    cause = "expired"


class Invalid(ClusterError):
    """The object can never be accepted as it is."""

    cause = "invalid"


class Forbidden(ClusterError):
    """A permission, a quota or an admission rule is against it."""

    cause = "forbidden"


class Throttled(ClusterError):
    """The server is busy; wait for `retry_after` seconds."""

    cause = "throttled"


class Unavailable(ClusterError):
    """No answer in time, or a failure of the server."""

    cause = "unavailable"


class NotLeading(ClusterError):
    """This process does not lead (any more) and may not write."""

    cause = "not_leading"


_BY_STATUS: dict[int, type[ClusterError]] = {
    400: Invalid, 403: Forbidden, 404: NotFound, 405: Invalid, 409: Conflict, 410: Expired, 413: Invalid, 422: Invalid, 429: Throttled,
}  # fmt: skip


class Page(NamedTuple):
    """A part of a list, all parts of which are of one moment."""

    items: list[Obj]
    version: str
    """The moment: a resourceVersion."""


class Cluster(Protocol):
    """The Kubernetes API. Each method raises `ClusterError`."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Obj:
        """One object, as it is now."""

    def list(self, kind: Kind, namespace: str = "", *, selector: str = "", metadata_only: bool = False) -> AsyncIterator[Page]:
        """All objects as they are now, in pages."""

    async def create(self, kind: Kind, namespace: str, body: Obj) -> Obj:
        """A new object; `AlreadyExists` if its name is taken."""

    async def patch(self, kind: Kind, namespace: str, name: str, body: Obj, *, subresource: str = "") -> Obj:
        """Merge `body` into the object; with `metadata.resourceVersion` or `.uid` in it only if that is still so (`Conflict`)."""

    async def replace(self, kind: Kind, namespace: str, name: str, body: Obj) -> Obj:
        """Put `body` in the object's place, if its `metadata.resourceVersion` is still so (`Conflict`)."""

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str, version: str = "") -> None:
        """Delete the object, and what it owns, if it is still that one (`Conflict`); one that is gone is success."""


class KubernetesCluster:
    """The adapter. Requests are in flight side by side, as many as `connections`."""

    def __init__(self, configuration: Any, *, timeout: float, list_timeout: float, page: int) -> None:
        self._config = configuration
        self._client = kubernetes.ApiClient(configuration)
        self._timeout = timeout
        self._list_timeout = list_timeout
        self._page = page

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def get(self, kind: Kind, namespace: str, name: str) -> Obj:  # the port says it
        return await self._call("GET", kind.path(namespace, name))

    async def list(self, kind: Kind, namespace: str = "", *, selector: str = "", metadata_only: bool = False) -> AsyncIterator[Page]:
        query: dict[str, str] = {"limit": str(self._page)} | ({"labelSelector": selector} if selector else {})
        accept = _METADATA_LIST if metadata_only else "application/json"
        while True:
            answer = await self._call("GET", kind.path(namespace), query=query, accept=accept, timeout=self._list_timeout)
            yield Page(answer.get("items") or [], answer["metadata"]["resourceVersion"])
            following = answer["metadata"].get("continue")
            if not following:
                return
            query["continue"] = following

    async def create(self, kind: Kind, namespace: str, body: Obj) -> Obj:
        return await self._call("POST", kind.path(namespace), body=body)

    async def patch(self, kind: Kind, namespace: str, name: str, body: Obj, *, subresource: str = "") -> Obj:
        return await self._call("PATCH", kind.path(namespace, name, subresource), body=body, content_type=_MERGE)

    async def replace(self, kind: Kind, namespace: str, name: str, body: Obj) -> Obj:
        return await self._call("PUT", kind.path(namespace, name), body=body)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str, version: str = "") -> None:
        only = {"uid": uid} | ({"resourceVersion": version} if version else {})
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background", "preconditions": only}
        try:
            await self._call("DELETE", kind.path(namespace, name), body=options)
        except NotFound:
            return

    async def served(self, group: str, version: str) -> frozenset[str]:
        """The plural names of a group's resources; empty if it is not served."""
        try:
            answer = await self._call("GET", f"/apis/{group}/{version}")
        except NotFound:
            return frozenset()
        return frozenset(item["name"] for item in answer["resources"])

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: Obj | None = None,
        accept: str = "application/json",
        content_type: str = "application/json",
        timeout: float | None = None,  # noqa: ASYNC109  # handed to the HTTP client, which also limits reading
    ) -> Obj:
        headers = {"Accept": accept, "Content-Type": content_type, "User-Agent": "shield-operator"}
        url = f"{self._config.host}{path}{'?' if query else ''}{urlencode(query or {})}"
        what = f"{method} {path}"
        limit = timeout or self._timeout
        try:
            async with asyncio.timeout(limit):
                if token := await self._config.get_api_key_with_prefix("BearerToken", alias="authorization"):
                    headers["Authorization"] = token
                response = await self._client.rest_client.request(method, url, headers=headers, body=body, _request_timeout=limit)
                content: bytes = await response.read()
        except TimeoutError as error:
            raise Unavailable(f"{what}: no answer in {limit:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{what}: {error}") from error
        if not 200 <= response.status < 300:
            raise _error(what, response.status, content, response.headers.get("Retry-After"))
        answer: Obj = from_json(content)
        return answer


def _error(what: str, status: int, content: bytes, retry_after: str | None) -> ClusterError:
    try:
        said = from_json(content)
    except ValueError:
        said = {}
    said = said if isinstance(said, dict) else {}
    reason, message = str(said.get("reason") or ""), str(said.get("message") or f"status {status}")
    kind = Unavailable if status >= 500 else _BY_STATUS.get(status, ClusterError)
    if reason == "AlreadyExists":
        kind = AlreadyExists
    wait = (said.get("details") or {}).get("retryAfterSeconds") or retry_after
    seconds = float(wait) if isinstance(wait, int) or (isinstance(wait, str) and wait.isdecimal()) else None
    return kind(f"{what}: {message}" if not said else message, status=status, reason=reason, retry_after=seconds)


class Fenced:
    """A cluster that takes writes only while `leading()` holds."""

    def __init__(self, cluster: Cluster, leading: Callable[[], bool]) -> None:
        self._cluster = cluster
        self._leading = leading

    def _check(self) -> None:
        if not self._leading():
            raise NotLeading("this process does not lead")

    async def get(self, kind: Kind, namespace: str, name: str) -> Obj:
        return await self._cluster.get(kind, namespace, name)

    def list(self, kind: Kind, namespace: str = "", *, selector: str = "", metadata_only: bool = False) -> AsyncIterator[Page]:
        return self._cluster.list(kind, namespace, selector=selector, metadata_only=metadata_only)

    async def create(self, kind: Kind, namespace: str, body: Obj) -> Obj:
        self._check()
        return await self._cluster.create(kind, namespace, body)

    async def patch(self, kind: Kind, namespace: str, name: str, body: Obj, *, subresource: str = "") -> Obj:
        self._check()
        return await self._cluster.patch(kind, namespace, name, body, subresource=subresource)

    async def replace(self, kind: Kind, namespace: str, name: str, body: Obj) -> Obj:
        self._check()
        return await self._cluster.replace(kind, namespace, name, body)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str, version: str = "") -> None:
        self._check()
        await self._cluster.delete(kind, namespace, name, uid=uid, version=version)


async def configuration(path: str = "", *, connections: int) -> Any:
    """How to reach the API server: a kubeconfig file if one is named, the pod's ServiceAccount in a cluster, else the usual kubeconfig."""
    config = kubernetes.Configuration()
    if path:
        await kubeconfig.load_kube_config(config_file=path, client_configuration=config)
    else:
        try:
            kubeconfig.load_incluster_config(client_configuration=config)
        except kubeconfig.ConfigException:
            await kubeconfig.load_kube_config(client_configuration=config)
    config.connection_pool_maxsize = connections
    # Else aiohttp looks for proxies and a netrc for each request, in a thread. A kubeconfig's own proxy-url still counts.
    config.client_session_kwargs = {"trust_env": False}
    return config
