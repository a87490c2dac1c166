"""From pydantic's validation errors to ours: names the field and the rule, never the value."""

from __future__ import annotations

from pydantic import ValidationError

from shield.errors import InvalidRequest


def invalid_request(error: ValidationError) -> InvalidRequest:
    """The same error on every surface, with the first few fields that are wrong."""
    problems = [
        {"field": ".".join(str(part) for part in item["loc"] if part not in {"crawl", "document"}) or "body", "problem": item["msg"]}
        for item in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    sentence = "; ".join(f"{problem['field']}: {problem['problem']}" for problem in problems[:3])
    return InvalidRequest(f"The request is not valid. {sentence}.", fields=problems[:10])
