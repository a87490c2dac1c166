"""All series of a server that did everything it can: each is declared, and no label holds what somebody chose."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
from fastmcp import Client
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from shield.errors import leaf_errors
from shield.telemetry.series import LABELS, SERIES, Role
from tests.integration.conftest import Running, ended
from tests.peers.site import Site

MARK = "quokka"
"""In every name, text and question that is sent."""
_UNBOUNDED = {
    "a uuid": re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}", re.IGNORECASE),
    "an address": re.compile(r"://|\d+\.\d+\.\d+\.\d+|localhost|127\.0"),
    "a hash": re.compile(r"[0-9a-f]{16}", re.IGNORECASE),
    "long": re.compile(r".{65}"),
    "what was sent": re.compile(MARK, re.IGNORECASE),
    "a principal": re.compile(r"^(local|shield:samples)$"),
}
_IDS = re.compile(r"/\d+|/[0-9a-f]{8}")


def series_of(text: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """(family as it is declared, sample, labels) of everything but the Python client's own."""
    for family in text_string_to_metric_families(text):  # type: ignore[no-untyped-call]
        name = family.name + ("_total" if family.type == "counter" else "")
        if not name.startswith("process_"):
            for sample in family.samples:
                yield name, sample.name, {key: value for key, value in sample.labels.items() if key != "le"}


async def make_busy(url: str, site: Site) -> None:
    """Crawl, ingest, ask, delete; be refused in every way."""
    async with Client(f"{url}/mcp") as client, httpx.AsyncClient(base_url=url) as rest:
        await client.call_tool("lightrag_query", {"query": f"Where does the {MARK} live?"})
        crawl = await client.call_tool("crawl_web", {"url": f"{site.url}/{MARK}", "max_pages": 4})
        note = await client.call_tool("ingest_doc", {"text": f"# {MARK}\n\nThe {MARK} opens the valve.", "filename": f"{MARK}.md"})
        jobs = [await ended(client, (job.structured_content or {})["job_id"]) for job in (crawl, note)]
        assert [job["status"] for job in jobs] == ["completed", "completed"], jobs
        listed = (await client.call_tool("list_documents", {})).structured_content or {}
        deletion = await client.call_tool("delete_document", {"document_id": listed["documents"][0]["document_id"]})
        await ended(client, (deletion.structured_content or {})["job_id"])
        for tool, arguments in (
            (f"{MARK}_tool", {}),
            ("qdrant_find", {"query": 17}),
            ("qdrant_find", {"query": "x", "knowledge_base": MARK}),
            ("get_job_status", {"job_id": "00000000-0000-4000-8000-000000000000"}),
        ):
            await client.call_tool(tool, arguments, raise_on_error=False)
        for method, path in (("GET", f"/{MARK}/1"), ("GET", f"/jobs/{MARK}"), ("GET", f"/knowledge-bases/{MARK}"), ("QUOKKA", "/jobs")):
            await rest.request(method, path)


async def test_every_series_is_declared_and_every_label_bounded(running: Running) -> None:
    broken = '<h1>Start</h1><p>Enough words to be a document.</p><a href="/gone">x</a>'
    async with Site(pages=2) as site, running(egress={"allow": (site.allow,)}) as app:
        site.put(f"/{MARK}", broken)
        await make_busy(app.info.url, site)
        async with httpx.AsyncClient() as rest:
            text = (await rest.get(app.info.metrics_url, headers={"Accept": "application/openmetrics-text"})).text
    declared = {item.name: item for item in SERIES if Role.UP in item.where}
    found: dict[str, set[str]] = {}
    for family, sample, labels in series_of(text):
        assert family in declared, f"{family} is in no table"
        assert set(labels) == set(declared[family].labels), sample
        for label, value in labels.items():
            found.setdefault(label, set()).add(value)
            wrong = [what for what, pattern in _UNBOUNDED.items() if pattern.search(value)]
            assert not wrong, f"{sample}{labels}: {label} looks like {wrong}"
    assert found["code"] <= {*leaf_errors(), "ok", "unknown"}
    assert not [route for route in found["route"] if _IDS.search(route)]
    assert found["method"] <= {"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "OTHER"}
    assert set(found) <= set(LABELS)
    told = {
        'shield_jobs_finished_total{kind="crawl",status="completed"}',
        'shield_stage_duration_seconds_count{stage="index"}',
        'shield_crawl_pages_total{code="ok"}',
        'shield_crawl_pages_total{code="page.not_found"}',
        'shield_graph_steps_total{operation="add",result="done"}',
        "shield_graph_writer_wait_seconds_count",
        'shield_jobs{status="pending"}',
        'circuit_breaker_state{service="postgres"} 0.0',
        "shield_worker_slots",
    }
    assert not [line for line in told if line not in text]


def test_the_search_for_unbounded_labels_finds_them() -> None:
    for value in (
        "9b2f6c1e-8d1f-4c54-9a55-5a3f6f0d8c11",
        "https://example.org/",
        "127.0.0.1:8000",
        "a" * 70,
        "local",
        f"/x/{MARK}",
        "d41d8cd98f00b204e980",
    ):
        assert [what for what, pattern in _UNBOUNDED.items() if pattern.search(value)], value
    for value in ("/jobs/{job_id}", "dependency.circuit_open", "lightrag_query", "0.1.0", "POST", "/lightrag/ingest-async"):
        assert not [what for what, pattern in _UNBOUNDED.items() if pattern.search(value)], value
