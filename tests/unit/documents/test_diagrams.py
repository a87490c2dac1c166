"""The tool that draws the documents' diagrams finds them, and runs nothing but the Mermaid that was pinned."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.render_diagrams import ROOT, VERSION, diagrams, mermaid


def test_the_architecture_is_drawn_as_system_components_data_flow_job_and_canary() -> None:
    kinds = [
        next(line for line in found.text.splitlines() if not line.startswith("%%")) for found in diagrams([ROOT / "docs/ARCHITECTURE.md"])
    ]
    assert [kind.split()[0] for kind in kinds] == ["flowchart", "flowchart", "flowchart", "sequenceDiagram", "sequenceDiagram"]


def test_a_diagram_is_named_by_document_and_line(tmp_path: Path) -> None:
    page = tmp_path / "PAGE.md"
    page.write_text("text\n\n```mermaid\nflowchart LR\n```\n```text\nno diagram\n```\n")
    (found,) = diagrams([page])
    assert (found.name, found.text) == ("page-3", "flowchart LR\n")


def test_a_package_with_another_digest_is_thrown_away_unread(tmp_path: Path) -> None:
    archive = tmp_path / f"mermaid-{VERSION}.tgz"
    archive.write_bytes(b"something else")
    with pytest.raises(SystemExit, match="not the pinned one"):
        mermaid(tmp_path)
    assert not archive.exists()
