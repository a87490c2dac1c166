"""What the documents tell a reader to type exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("charts/*/README.md"))]
_FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_MAKE = re.compile(r"(?:^|[\s;&|(])make((?: +[a-z][a-z0-9*-]*(?![\w=*]))+)", re.MULTILINE)
_CONSOLES = {"", "bash", "console", "sh", "shell"}


def targets_named(text: str) -> Iterator[str]:
    """What `make` is asked for in the code spans and console blocks of a document; `proof-*` names every target like it."""
    blocks = [body for language, body in _FENCED.findall(text) if language in _CONSOLES]
    for code in (*blocks, *_SPAN.findall(_FENCED.sub("", text))):
        for targets in _MAKE.findall(re.sub(r"(?m)(^|\s)#.*$", "", code)):
            yield from targets.split()


@pytest.fixture(scope="module")
def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS])
def test_every_make_target_that_a_document_names_is_one_of_the_makefile(document: Path, targets: set[str]) -> None:
    named = set(targets_named(document.read_text(encoding="utf-8")))
    assert [name for name in sorted(named) if not any(fnmatch(target, name) for target in targets)] == []


def test_targets_are_found_in_spans_and_consoles_and_nowhere_else() -> None:
    text = """They make bases. `make up ARGS=--once`, `sudo -E make cluster-up`, `make proof-*`, `maker make`, `remake it`

```console
$ make sync test CLUSTER=kind   # these make sense
$ cd x && make nowhere
```

```yaml
make: not this
```
"""
    assert list(targets_named(text)) == ["sync", "test", "nowhere", "up", "cluster-up", "proof-*"]
