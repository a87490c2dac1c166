"""The API's own description for people: `/docs`, and one page an error.

Plain HTML made from the OpenAPI document, without scripts: the usual documentation pages load theirs from a CDN, which fails
offline and would run strangers' code on the very origin this server trusts.
"""

from __future__ import annotations

from html import escape
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse

from shield.errors import ShieldError, UnknownRoute, leaf_errors

router = APIRouter(include_in_schema=False)
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}code{{background:#8882;padding:0 .2em}}
table{{border-collapse:collapse}}td,th{{border-bottom:1px solid #8886;padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:top}}
summary{{cursor:pointer}}</style></head><body><h1>{title}</h1>{body}</body></html>"""


@router.get("/")
async def index() -> RedirectResponse:
    """People who open the address find the description."""
    return RedirectResponse("/docs")


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """Every route with its parameters and answers, and every error."""
    described = request.app.openapi()
    parts = [f"<p>{escape(described['info']['description'])} Machines read <a href='/openapi.json'>/openapi.json</a>.</p><h2>Routes</h2>"]
    parts += [_operation(path, method, operation) for path, item in described["paths"].items() for method, operation in item.items()]
    parts.append("<h2>Errors</h2><table><tr><th>code</th><th>status</th><th>sentence</th></tr>")
    parts += [_error_row(error) for error in leaf_errors().values()]
    return HTMLResponse(_PAGE.format(title=escape(described["info"]["title"]), body="".join(parts) + "</table>"))


@router.get("/docs/errors/{code}")
async def error_page(code: str) -> HTMLResponse:
    """What an error means and what to do; the `type` of every problem leads here."""
    error = leaf_errors().get(code)
    if error is None:
        raise UnknownRoute
    retry = "The same request may succeed later." if error.retryable else "The same request will fail again."
    body = f"<p>{escape(error.sentence())}</p><p><b>What to do:</b> {escape(error.advice)}</p><p>HTTP status {error.status}. {retry}</p>"
    return HTMLResponse(_PAGE.format(title=escape(code), body=body + "<p><a href='/docs'>All routes and errors</a></p>"))


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    parameters = "".join(
        f"<tr><td><code>{escape(p['name'])}</code></td><td>{escape(p['in'])}</td><td>{escape(p.get('description', ''))}</td></tr>"
        for p in operation.get("parameters", [])
    )
    body = operation.get("requestBody", {}).get("content", {})
    bodies = "".join(f"<p>Body: {escape(media)} {escape(_schema_name(content))}</p>" for media, content in body.items())
    answers = "".join(
        f"<tr><td>{escape(status)}</td><td>{escape(answer.get('description', ''))}</td></tr>"
        for status, answer in operation["responses"].items()
    )
    return (
        f"<details><summary><code>{method.upper()} {escape(path)}</code> {escape(operation.get('summary', ''))}</summary>"
        f"<p>{escape(operation.get('description', ''))}</p>{bodies}<table>{parameters}</table><table>{answers}</table></details>"
    )


def _schema_name(content: dict[str, Any]) -> str:
    return str(content.get("schema", {}).get("$ref", "")).rpartition("/")[2]


def _error_row(error: type[ShieldError]) -> str:
    link = f"<a href='/docs/errors/{error.code}'><code>{error.code}</code></a>"
    return f"<tr id='{error.code}'><td>{link}</td><td>{error.status}</td><td>{escape(error.sentence())}</td></tr>"
