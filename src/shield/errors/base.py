"""What every typed error is: its class attributes, its sentence and its structured form."""

from __future__ import annotations

import inspect
from enum import IntEnum, StrEnum
from typing import Any, ClassVar


class Fault(StrEnum):
    """Whose mistake an error is; the SLOs count only `dependency` and `server`."""

    CALLER = "caller"
    DEPENDENCY = "dependency"
    SERVER = "server"


class Exit(IntEnum):
    """Exit codes of the CLI and of `shield run-job`: fixed, a pod's failure policy depends on them."""

    OK = 0
    BUG = 1
    USAGE = 2
    BAD_SPEC = 10
    AUTH = 11
    REFUSED = 12
    ALL_FAILED = 13
    BUDGET = 14
    PARTIAL = 20
    TRANSIENT = 75
    LEASE_LOST = 76
    INTERRUPTED = 130
    DRAINED = 143


class ShieldError(Exception):
    """Base of all typed errors; raise a leaf class.

    Args:
        message: replaces the class's sentence with a more exact one; must be safe to show to the caller.
        retry_after: seconds after which a retry makes sense.
        details: small, safe facts (limits, names the caller sent) for the structured forms.
    """

    code: ClassVar[str] = ""
    advice: ClassVar[str] = ""
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    fault: ClassVar[Fault] = Fault.CALLER
    exit_code: ClassVar[Exit] = Exit.REFUSED

    def __init__(self, message: str | None = None, *, retry_after: float | None = None, **details: Any) -> None:
        self.message = message or self.sentence()
        self.retry_after = retry_after
        self.details = details
        super().__init__(f"{self.code}: {self.message}")

    @classmethod
    def sentence(cls) -> str:
        """The class's own sentence: the first line of its docstring."""
        return (inspect.getdoc(cls) or cls.__name__).splitlines()[0]

    def public(self) -> dict[str, Any]:
        """The structured form shared by every surface: code, message, advice, retryable, and when to retry."""
        body: dict[str, Any] = {
            "code": self.code,
            "message": self.message,
            "advice": self.advice,
            "retryable": self.retryable,
        }
        if self.retry_after is not None:
            body["retry_after"] = round(self.retry_after, 3)
        if self.details:
            body["details"] = self.details
        return body
