"""The peer: it answers what qdrant-client sends, as a server would, and refuses what a server refuses.

Kept: status codes and wording of errors that clients act on (unknown collection 404, existing one 409, bad or missing key 401,
`TextQuery` 400, since it exists in Edge and in local mode but in no server; with `app.state.strict`, a filter by a field without an index
400). A collection tells how it was made and which fields are indexed. Not kept: speed, durability, shards, snapshots, and what a request says
about waiting, ordering and consistency, for which one thread is always enough. Tests may force failures with `fail_next(status)`.
Everything is in memory.
"""

from __future__ import annotations

import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Self

import uvicorn
from pydantic import BaseModel, TypeAdapter, ValidationError
from qdrant_client import QdrantClient, models
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Handler = Callable[[QdrantClient, Request, Any], Any]

_BAD_QUERY = "Format error in JSON body: Expected some form of vector, id, or a type of query"


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def create_app(api_key: str | None = None) -> Starlette:
    """The peer as an ASGI application with its own, empty store; `app.state.failures` holds statuses to answer with next."""
    lock = threading.Lock()
    client = QdrantClient(":memory:")

    def route(path: str, method: str, handler: Handler) -> Route:
        def work(request: Request, body: Any) -> Any:
            with lock, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # local mode says that payload indexes have no effect
                return handler(client, request, body)

        async def endpoint(request: Request) -> Response:
            if app.state.failures:
                return _error(app.state.failures.pop(0), "Service internal error: forced")
            try:
                if api_key is not None:
                    _authenticate(request, api_key)
                body = await request.json() if await request.body() else None
                result = await run_in_threadpool(work, request, body)
            except Refusal as refusal:
                return _error(refusal.status, refusal.message)
            except (ValidationError, AttributeError, TypeError, KeyError) as error:
                return _error(400, f"Format error in JSON body: {type(error).__name__}")
            except ValueError as error:
                return _error(400, f"Wrong input: {error}")
            return JSONResponse({"result": _plain(result), "status": "ok", "time": 0.0})

        return Route(path, endpoint, methods=[method])

    async def root(_request: Request) -> Response:
        return JSONResponse({"title": "qdrant - vector search engine", "version": "1.17.1-peer"})

    one, points = "/collections/{name}", "/collections/{name}/points"
    app = Starlette(
        routes=[
            Route("/", root),
            route("/collections", "GET", lambda c, _r, _b: c.get_collections()),
            route("/collections/aliases", "POST", _change_aliases),
            route("/aliases", "GET", lambda c, _r, _b: c.get_aliases()),
            route(one, "GET", _info),
            route(one, "PUT", _create),
            route(one, "DELETE", _drop),
            route(f"{one}/exists", "GET", lambda c, r, _b: {"exists": c.collection_exists(r.path_params["name"])}),
            route(f"{one}/aliases", "GET", lambda c, r, _b: c.get_collection_aliases(_known(c, r))),
            route(f"{one}/index", "PUT", _create_index),
            route(points, "PUT", _upsert),
            route(points, "POST", _retrieve),
            route(f"{points}/delete", "POST", _delete),
            route(f"{points}/query", "POST", _query),
            route(f"{points}/query/batch", "POST", _query_batch),
            route(f"{points}/scroll", "POST", _scroll),
            route(f"{points}/count", "POST", _count),
        ]
    )
    app.state.failures = []
    app.state.client = client
    app.state.made = {}  # how each collection was made
    app.state.indexes = {}  # its indexed fields, with the index's type
    app.state.strict = False
    app.state.fail_indexes = False
    return app


class QdrantPeer:
    """The peer on a free port of 127.0.0.1, in a thread: `with QdrantPeer() as peer: peer.url`."""

    def __init__(self, api_key: str | None = None) -> None:
        self.app = create_app(api_key)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._server = uvicorn.Server(uvicorn.Config(self.app, log_level="error", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def fail_next(self, *statuses: int) -> None:
        """Answer the next requests with these statuses."""
        self.app.state.failures.extend(statuses)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=10)
        self._socket.close()


def _create(client: QdrantClient, request: Request, body: Any) -> Any:
    name = request.path_params["name"]
    if client.collection_exists(name):
        raise Refusal(409, f"Wrong input: Collection `{name}` already exists!")
    wanted = models.CreateCollection.model_validate(body)
    request.app.state.made[name], request.app.state.indexes[name] = wanted, {}
    return client.create_collection(name, vectors_config=wanted.vectors, sparse_vectors_config=wanted.sparse_vectors)


def _drop(client: QdrantClient, request: Request, _body: Any) -> Any:
    name = request.path_params["name"]
    request.app.state.made.pop(name, None)
    request.app.state.indexes.pop(name, None)
    return client.delete_collection(name)


def _info(client: QdrantClient, request: Request, _body: Any) -> Any:
    name = _known(client, request)
    info = _plain(client.get_collection(name))
    indexes = request.app.state.indexes.get(name, {})
    return {**info, "payload_schema": {key: {"data_type": kind, "points": 0} for key, kind in indexes.items()}}


def _create_index(client: QdrantClient, request: Request, body: Any) -> Any:
    name = _known(client, request)
    if request.app.state.fail_indexes:
        raise Refusal(500, "Service internal error: forced")
    wanted: Any = TypeAdapter(models.CreateFieldIndex).validate_python(body)
    schema = wanted.field_schema
    kind = getattr(schema, "type", schema)
    request.app.state.indexes.setdefault(name, {})[wanted.field_name] = str(getattr(kind, "value", kind))
    return client.create_payload_index(name, wanted.field_name, schema)


def _upsert(client: QdrantClient, request: Request, body: Any) -> Any:
    name = _known(client, request)
    if "batch" in body:
        return client.upsert(name, models.Batch.model_validate(body["batch"]))
    return client.upsert(name, [models.PointStruct.model_validate(point) for point in body["points"]])


def _retrieve(client: QdrantClient, request: Request, body: Any) -> Any:
    wanted = models.PointRequest.model_validate(body)
    return client.retrieve(_known(client, request), wanted.ids, with_payload=_payload(wanted), with_vectors=wanted.with_vector or False)


def _delete(client: QdrantClient, request: Request, body: Any) -> Any:
    selector: Any = TypeAdapter(models.PointsSelector).validate_python(body)
    return client.delete(_known(client, request), selector)


def _query(client: QdrantClient, request: Request, body: Any) -> Any:
    _require_indexes(request, body)
    return _answer(client, _known(client, request), body)


def _query_batch(client: QdrantClient, request: Request, body: Any) -> Any:
    name = _known(client, request)
    _require_indexes(request, body)
    return [_answer(client, name, search) for search in body["searches"]]


def _require_indexes(request: Request, body: Any) -> None:
    """In strict mode, refuse a filter by a field without an index, in a server's words."""
    indexed = request.app.state.indexes.get(request.path_params["name"], {})
    for key in _filtered(body) if request.app.state.strict else ():
        if key not in indexed:
            wanted = f'Index required but not found for "{key}" of one of the following types: [keyword].'
            raise Refusal(400, f"Bad request: {wanted} Help: Create an index for this key or use a different filter.")


def _filtered(body: Any) -> Iterator[str]:
    if isinstance(body, dict):
        if "key" in body and ("match" in body or "range" in body):
            yield body["key"]
        for value in body.values():
            yield from _filtered(value)
    elif isinstance(body, list):
        for value in body:
            yield from _filtered(value)


def _answer(client: QdrantClient, name: str, body: Any) -> Any:
    _refuse_text_queries(body)
    wanted = models.QueryRequest.model_validate(body)
    return client.query_points(
        name,
        query=wanted.query,
        using=wanted.using,
        prefetch=wanted.prefetch,
        query_filter=wanted.filter,
        search_params=wanted.params,
        limit=wanted.limit or 10,
        offset=wanted.offset,
        with_payload=_payload(wanted, default=False),
        with_vectors=wanted.with_vector or False,
        score_threshold=wanted.score_threshold,
    )


def _refuse_text_queries(body: Any) -> None:
    query = body.get("query")
    if isinstance(query, dict) and "text" in query:
        raise Refusal(400, _BAD_QUERY)
    prefetch = body.get("prefetch") or []
    for inner in prefetch if isinstance(prefetch, list) else [prefetch]:
        _refuse_text_queries(inner)


def _scroll(client: QdrantClient, request: Request, body: Any) -> Any:
    wanted = models.ScrollRequest.model_validate(body)
    records, following = client.scroll(
        _known(client, request),
        scroll_filter=wanted.filter,
        limit=wanted.limit or 10,
        offset=wanted.offset,
        order_by=wanted.order_by,
        with_payload=_payload(wanted),
        with_vectors=wanted.with_vector or False,
    )
    return {"points": _plain(records), "next_page_offset": following}


def _count(client: QdrantClient, request: Request, body: Any) -> Any:
    wanted = models.CountRequest.model_validate(body)
    return client.count(_known(client, request), count_filter=wanted.filter)


def _change_aliases(client: QdrantClient, _request: Request, body: Any) -> Any:
    return client.update_collection_aliases(models.ChangeAliasesOperation.model_validate(body).actions)


def _known(client: QdrantClient, request: Request) -> str:
    name = str(request.path_params["name"])
    if not client.collection_exists(name):
        raise Refusal(404, f"Not found: Collection `{name}` doesn't exist!")
    return name


def _payload(wanted: Any, *, default: bool = True) -> Any:
    return default if wanted.with_payload is None else wanted.with_payload


def _authenticate(request: Request, key: str) -> None:
    sent = request.headers.get("api-key")
    if sent is None:
        raise Refusal(401, "Must provide an API key or an Authorization bearer token")
    if sent != key:
        raise Refusal(401, "Invalid API key or JWT")


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _error(status: int, message: str) -> Response:
    headers = {"retry-after": "3"} if status == 429 else None
    return JSONResponse({"status": {"error": message}, "time": 0.0}, status_code=status, headers=headers)
