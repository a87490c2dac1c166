"""`python -m images [IMAGE ...]`: build images, say how large they are, and push them.

    python -m images                      the operator, the server and the crawler
    python -m images server services      only these (`services` is for tests on a cluster)
    python -m images --list               what would be built, as JSON

BUILDER=docker|buildah chooses the builder, REGISTRY=host:port/path the registry; without one, images go to the local cluster's if it runs.
Sizes are in MB of all layers unpacked; an image above its limit ends the command with 1, after all are built.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from images.builders import Buildah, Docker, choose
from images.catalogue import ALL, MB, PRODUCT, ROOT, Image, version
from images.errors import ImageError, TooLarge
from images.local_base import make_local_base
from images.process import run, succeeds
from images.registry import check_publication, destinations, is_private
from images.settings import ImageSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m images", description="Build the images, say how large they are, and push them.")
    parser.add_argument(
        "images", nargs="*", metavar="IMAGE", help=f"one of {', '.join(ALL)}; default: {', '.join(i.target for i in PRODUCT)}"
    )
    parser.add_argument("--tag", default=version(), help="default: the product's version")
    parser.add_argument("--no-push", action="store_true", help="only build")
    parser.add_argument("--list", action="store_true", help="print names and limits as JSON and build nothing")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.images) - set(ALL)):
        parser.error(f"there is no image {', '.join(unknown)}; there are {', '.join(ALL)}")
    wanted = with_their_bases([ALL[name] for name in options.images] or list(PRODUCT))
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))  # as Ctrl-C does: the builder that runs is ended too
    settings = ImageSettings()
    if options.list:
        print(json.dumps([listed(image, options.tag, destinations(settings)) for image in wanted], indent=1))
        return 0
    try:
        make(wanted, options.tag, settings, push=not options.no_push)
    except ImageError as error:
        print(f"{error}\n{error.advice}".rstrip() + f"\n[{error.code}]", file=sys.stderr)
        return error.exit_code
    return 0


def make(images: Sequence[Image], tag: str, settings: ImageSettings, *, push: bool) -> None:
    """Build, measure and push.

    Raises:
        ImageError: something of it failed; `TooLarge` only after everything was built.
    """
    builder = choose(settings)
    registries = destinations(settings) if push else ()
    ensure_base(builder, settings)
    too_large = []
    for image in images:
        began = time.monotonic()
        builder.build(image, tag, build_arguments(image, tag, settings))
        size = builder.size(image.local(tag))
        print(
            f"{image.name:<22} {size / MB:6.0f} MB of {image.limit / MB:.0f}, built by {builder.name} in {time.monotonic() - began:.0f} s",
            flush=True,
        )
        if size > image.limit:
            too_large.append(f"{image.name} has {size / MB:.0f} MB, allowed are {image.limit / MB:.0f} MB")
            continue
        for registry in registries:
            check_publication(registry, builder.labels(image.local(tag)))
            builder.push(image.local(tag), image.remote(registry, tag), plain_http=is_private(registry))
            print(f"{'':<22} pushed as {image.remote(registry, tag)}", flush=True)
    if too_large:
        raise TooLarge("; ".join(too_large))
    if push and not registries:
        print("Not pushed: REGISTRY is not set and no local cluster runs.")


def with_their_bases(images: Sequence[Image]) -> list[Image]:
    """The images in an order in which they can be built, each after the one it stands on."""
    ordered: list[Image] = []
    by_name = {image.name: image for image in ALL.values()}
    for image in images:
        for needed in ([by_name[image.on]] if image.on else []) + [image]:
            if needed not in ordered:
                ordered.append(needed)
    return ordered


def build_arguments(image: Image, tag: str, settings: ImageSettings) -> Mapping[str, str]:
    """What the Dockerfile is told; the commit's time, not the clock's, so that the same commit gives the same labels."""
    if image.on is not None:
        return {"SERVER": f"localhost/{image.on}:{tag}", "BASE": settings.base}
    revision, created = _commit()
    return {"BASE": settings.base, "VERSION": version(), "REVISION": revision, "CREATED": created}


def ensure_base(builder: Docker | Buildah, settings: ImageSettings) -> None:
    """See that the base image is there; Docker pulls it by itself.

    Raises:
        PrerequisiteMissing: it can neither be pulled nor made.
    """
    if isinstance(builder, Docker) or builder.has(settings.base):
        return
    if settings.local_base != "always" and (builder.pulled(settings.base) or settings.local_base == "never"):
        return
    began = time.monotonic()
    make_local_base(builder, settings)
    print(f"made {settings.base} from Debian packages in {time.monotonic() - began:.0f} s: for tests on this machine only", flush=True)


def listed(image: Image, tag: str, registries: Sequence[str]) -> dict[str, object]:
    """An image as `--list` shows it."""
    return {
        "image": image.target,
        "name": image.name,
        "limit": image.limit,
        "reference": image.remote(registries[0], tag) if registries else image.local(tag),
    }


def _commit() -> tuple[str, str]:
    """Revision and time of the checked-out commit; `-dirty` is added to the revision of a changed tree."""
    git = ["git", "-C", str(ROOT)]
    try:
        revision, seconds = run([*git, "log", "-1", "--format=%H %ct"], within=10).split()
    except ImageError:
        return "unknown", "1970-01-01T00:00:00Z"
    clean = succeeds([*git, "diff", "--quiet", "HEAD", "--", "src", "operator", "images", "pyproject.toml", "uv.lock"], within=30)
    return revision if clean else f"{revision}-dirty", datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


if __name__ == "__main__":
    sys.exit(main())
