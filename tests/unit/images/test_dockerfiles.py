"""What every Dockerfile must be: buildable by any builder, without tools, names or users that a reader would have to trust."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from images.catalogue import ALL, PRODUCT, ROOT, Image

LABELS = ("title", "description", "version", "revision", "created")
INHERITED = ("vendor", "licenses", "base.name")
TOOLS = ("gcc", "build-essential", "git", "curl", "wget", "uv ", "pip install", "hatchling", "python3-dev")


@dataclass
class Stage:
    """One FROM and what follows it."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def of(self, instruction: str) -> list[str]:
        return [text for name, text in self.steps if name == instruction]


def stages(dockerfile: Path) -> dict[str, Stage]:
    """The stages by name, continued lines joined, arguments of the file's head put in."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, Stage] = {}
    stage: Stage | None = None
    arguments: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            stage = Stage(re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], base), name)
            found[name] = stage
        elif stage is None:
            assert instruction == "ARG", line
            name, _, default = rest.partition("=")
            arguments[name] = default
        else:
            stage.steps.append((instruction, rest.strip()))
    return found


def lineage(image: Image) -> list[Stage]:
    """The image's last stage and those it stands on, as far as they are in the same file."""
    every = stages(image.dockerfile)
    chain = [every[image.target]]
    while chain[-1].base in every:
        chain.append(every[chain[-1].base])
    return chain


images = pytest.mark.parametrize("image", ALL.values(), ids=ALL)
products = pytest.mark.parametrize("image", PRODUCT, ids=[image.target for image in PRODUCT])


@images
def test_any_builder_understands_it(image: Image) -> None:
    text = image.dockerfile.read_text()
    assert "syntax=" not in text
    assert "--mount" not in text
    assert "--link" not in text
    assert "<<" not in text


@images
def test_it_runs_as_a_numbered_user_who_is_not_root(image: Image) -> None:
    users = [user for stage in lineage(image) for user in stage.of("USER")]
    assert users == ["10001:10001"]
    final = lineage(image)[0]
    written = [index for index, (name, _) in enumerate(final.steps) if name in {"COPY", "RUN"}]
    assert [name for name, _ in final.steps].index("USER") > max(written), "no file belongs to the user"


@images
def test_no_base_is_a_moving_target_and_nothing_is_fetched_from_an_address(image: Image) -> None:
    every = stages(image.dockerfile)
    for stage in every.values():
        assert stage.base in every or re.search(r":(?!latest)[\w.-]+$", stage.base), stage.base
        assert not stage.of("ADD")


@products
def test_all_begin_with_the_same_stage(image: Image) -> None:
    assert lineage(image)[-1].name == "base"
    assert lineage(image)[-1].base == "python:3.12-slim-bookworm"


@images
def test_no_stage_that_is_shipped_installs_a_tool(image: Image) -> None:
    for stage in lineage(image):
        assert not [tool for tool in TOOLS if any(tool in run for run in stage.of("RUN"))], stage.name
        assert not [copy for copy in stage.of("COPY") if "/opt/tools" in copy or "/build" in copy]


@products
def test_installers_of_the_base_are_taken_out(image: Image) -> None:
    first = lineage(image)[-1].of("RUN")[0]
    assert first.startswith("rm -rf /usr/local/lib/python3.12/site-packages/*")
    assert "ensurepip" in first


@products
def test_it_says_what_it_is(image: Image) -> None:
    labels = " ".join(label for stage in lineage(image) for label in stage.of("LABEL"))
    for name in (*LABELS, *INHERITED):
        assert f"org.opencontainers.image.{name}=" in labels
    final = [name for name, _ in lineage(image)[0].steps]
    assert final.index("ARG") > final.index("RUN"), "a new commit must not spoil the cache"


@products
def test_it_carries_a_bill_of_materials_of_its_own(image: Image) -> None:
    runs = lineage(image)[0].of("RUN")
    assert f"sbom.py {image.name} /usr/local/share/shield/sbom.cdx.json" in runs[-1]


@images
def test_package_lists_do_not_stay(image: Image) -> None:
    for stage in lineage(image):
        for run in stage.of("RUN"):
            assert ("apt-get install" in run) == ("rm -rf /var/lib/apt/lists/*" in run)
            assert "apt-get install" not in run or "--no-install-recommends" in run


def test_what_installs_is_pinned_by_hash() -> None:
    for path in (ROOT / "images" / "build-requirements.txt", ROOT / "tests" / "kubernetes" / "services" / "requirements.txt"):
        requirements = path.read_text().replace("\\\n", " ").splitlines()
        assert requirements
        for requirement in requirements:
            assert re.match(r"^[\w.-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", requirement), requirement


def test_the_test_services_have_the_locked_valkey() -> None:
    lock = (ROOT / "uv.lock").read_text()
    for digest in re.findall(r"sha256:[0-9a-f]{64}", (ROOT / "tests" / "kubernetes" / "services" / "requirements.txt").read_text()):
        assert digest in lock


def test_a_build_sees_its_sources_only() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    allowed = [line[1:] for line in lines if line.startswith("!")]
    for stage in (stage for image in ALL.values() for stage in stages(image.dockerfile).values()):
        for copy in stage.of("COPY"):
            if not copy.startswith("--from"):
                for source in copy.split()[:-1]:
                    assert any(fnmatch.fnmatch(source, pattern) or source.startswith(f"{pattern}/") for pattern in allowed), source
