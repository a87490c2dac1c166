"""The generated reference is committed, current, and complete."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from shield.errors import leaf_errors

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def generated() -> dict[Path, str]:
    files: dict[Path, str] = runpy.run_path(str(ROOT / "tools/generate_docs.py"))["generate"]()
    return files


def test_the_committed_files_are_what_the_code_says(generated: dict[Path, str]) -> None:
    for path, text in generated.items():
        assert path.read_text(encoding="utf-8") == text, f"docs/{path.name} is out of date: run tools/generate_docs.py"


def test_every_error_is_described_and_every_link_leads_somewhere(generated: dict[Path, str]) -> None:
    text = generated[ROOT / "docs/API_REFERENCE.md"]
    for code, error in leaf_errors().items():
        assert f'<a id="{code}"></a>' in text
        assert " ".join(error.advice.split()).replace("|", "\\|") in text
    anchors = {line.removeprefix("### ").lower() for line in text.splitlines() if line.startswith("### ")} | set(leaf_errors())
    links = {part.split(")")[0] for part in text.split("](#")[1:]}
    assert links <= anchors


def test_the_schema_names_everything_once(generated: dict[Path, str]) -> None:
    schema: dict[str, Any] = json.loads(generated[ROOT / "docs/openapi.json"])
    operations = [operation for item in schema["paths"].values() for operation in item.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    for operation in operations:
        assert operation["description"]
        for status, answer in operation["responses"].items():
            assert status != "422" or "application/problem+json" in answer["content"]
            if status == "202":
                assert {"Location", "Retry-After"} <= set(answer["headers"])
                assert answer["links"]["job"]["operationId"] in names
    text = generated[ROOT / "docs/openapi.json"]
    references = {part.split('"')[0] for part in text.split('"#/components/')[1:]}
    for reference in references:
        kind, _, name = reference.partition("/")
        assert name in schema["components"][kind]
