"""What can go wrong with an image, as errors that say what to do."""

from __future__ import annotations


class ImageError(Exception):
    """An image cannot be built, measured or pushed; the message says why, `advice` what to do about it."""

    code = "image.failed"
    exit_code = 1
    advice = ""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.advice = advice or self.advice


class PrerequisiteMissing(ImageError):
    """This machine lacks a program or a permission."""

    code = "image.prerequisite_missing"
    exit_code = 2


class BuildFailed(ImageError):
    """A command of the builder failed or took too long."""

    code = "image.build_failed"


class TooLarge(ImageError):
    """An image is larger than promised."""

    code = "image.too_large"
    advice = "docs/IMAGES.md says what is big; take something out, or raise the limit in images/catalogue.py with the reason."


class NotForPublication(ImageError):
    """An image on a base made here would leave this machine's network."""

    code = "image.not_for_publication"
    advice = "Build where docker.io can be reached, with SHIELD_IMAGES_LOCAL_BASE=never."
