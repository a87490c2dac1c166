"""Generated files are up to date, every value is documented and used, and every template has a suite."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "shield"


def tool(name: str) -> ModuleType:
    """A module of tools/, which is no package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


values = tool("chart_values")
generate = tool("generate_chart")
TEMPLATES = "\n".join(path.read_text(encoding="utf-8") for path in (CHART / "templates").rglob("*") if path.is_file())


def test_files_of_the_chart_are_up_to_date() -> None:
    assert generate.main(["--check"]) == 0


def test_drift_and_strays_are_named_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stray, drifted = tmp_path / "files" / "monitoring" / "old.json", tmp_path / "VALUES.md"
    stray.parent.mkdir(parents=True)
    stray.write_text("{}")
    monkeypatch.setattr(generate, "generate", lambda: {drifted: "new"})
    monkeypatch.setattr(generate, "monitoring", dict)
    monkeypatch.setattr(generate, "CHART", tmp_path)
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    assert generate.main(["--check"]) == 1
    assert {line.split()[0] for line in capsys.readouterr().err.splitlines()} == {"VALUES.md", "files/monitoring/old.json"}
    assert generate.main([]) == 0
    assert (drifted.read_text(), stray.exists(), generate.main(["--check"])) == ("new", False, 0)


def read(text: str) -> Any:
    return values.read_values(text)


def test_a_value_has_its_sentence_its_default_and_what_its_schema_narrows() -> None:
    [group] = read("a:\n  # -- How many.\n  # Of them.\n  # @schema {minimum: 1}\n  n: 3\n  # -- Labels.\n  labels: {}\n")
    schema = values.schema_of((group,))
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {"a", "enabled"}
    assert schema["properties"]["a"] == {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "n": {"description": "How many. Of them.", "type": "integer", "minimum": 1},
            "labels": {"description": "Labels.", "type": "object"},
        },
    }
    assert "| `a.n` | `3` | How many. Of them. |" in values.table_of((group,))


@pytest.mark.parametrize("text", ["a: 1\n", "a:\n  b: 1\n", "a: {}\n", "# no mark\na: 1\n"])
def test_a_value_without_a_sentence_is_an_error(text: str) -> None:
    with pytest.raises(values.UndocumentedValue):
        read(text)


def test_the_root_is_closed_and_global_is_open() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert schema["additionalProperties"] is False
    assert "additionalProperties" not in schema["properties"]["global"]


@pytest.mark.parametrize(
    "leaf",
    [leaf for value in read((CHART / "values.yaml").read_text(encoding="utf-8")) for leaf in value.leaves()],
    ids=lambda leaf: ".".join(leaf.path),
)
def test_every_value_is_used(leaf: Any) -> None:
    """By its own name in a template (many are reached through a variable that stands for their group), or with its whole group."""
    printed = re.search(rf"toYaml \.Values\.{re.escape('.'.join(leaf.path[:-1]))}\b", TEMPLATES) if leaf.path[:-1] else None
    assert printed or re.search(rf"\.{re.escape(leaf.path[-1])}\b", TEMPLATES), f"no template uses {'.'.join(leaf.path)}"


def test_every_value_that_a_template_names_in_full_exists() -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    for path in sorted(set(re.findall(r"(?:\.Values|\$v|\$values)\.([A-Za-z]+(?:\.[A-Za-z0-9]+)*)", TEMPLATES))):
        found: Any = defaults
        for part in path.split("."):
            assert not isinstance(found, dict) or not found or part in found, f"values.yaml has no {path}"
            found = found.get(part) if isinstance(found, dict) else None


def test_every_template_has_a_suite() -> None:
    templates = {
        path.stem.replace("-", "_") for path in (CHART / "templates").rglob("*") if path.is_file() and not path.name.startswith("_")
    }
    suites = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert {name.lower() for name in templates} - suites == set()


def test_no_value_is_a_password() -> None:
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    assert not re.search(r"^\s*(password|secret|token|apiKey):\s*[\"']?\w", text, re.MULTILINE | re.IGNORECASE)


def test_chart_and_product_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    [version] = re.findall(r'^__version__ = "([^"]+)"', (ROOT / "src" / "shield" / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert chart["appVersion"] == chart["version"] == version
