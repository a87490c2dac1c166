"""Running the builder's commands: bounded, quiet when they succeed, and with the end of what they said when they fail."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence

from images.errors import BuildFailed, PrerequisiteMissing

_TAIL = 6000  # characters of a failed command's output


def run(command: Sequence[str], *, within: float) -> str:
    """Run a command and return its standard output, stripped.

    Args:
        command: program and arguments.
        within: seconds; then the command and all it started are killed.

    Raises:
        PrerequisiteMissing: there is no such program.
        BuildFailed: it ended with another code than 0, or took too long.
    """
    try:
        process = subprocess.Popen(  # noqa: S603  our own command lines, no shell
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
    except FileNotFoundError as error:
        raise PrerequisiteMissing(f"{command[0]} is not installed.", f"On Debian or Ubuntu: apt-get install {command[0]}") from error
    try:
        output, errors = process.communicate(timeout=within)
    except subprocess.TimeoutExpired as error:
        raise BuildFailed(f"`{' '.join(command[:4])} ...` took longer than {within:.0f} s.") from error
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode != 0:
        raise BuildFailed(f"`{' '.join(command[:4])} ...` ended with {process.returncode}:\n{(output + errors)[-_TAIL:]}")
    return output.strip()


def succeeds(command: Sequence[str], *, within: float) -> bool:
    """Whether a command ends with 0 in time."""
    try:
        run(command, within=within)
    except (BuildFailed, PrerequisiteMissing):
        return False
    return True
