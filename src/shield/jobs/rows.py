"""Rows of `jobs` and `job_outcomes` as the domain sees them, and the SQL conditions that more than one statement needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from sqlalchemy import RowMapping

from shield.jobs.model import DocumentOutcome, Job, JobKind, OutcomeStatus, Priority, Progress, Stage, Status

COLUMNS = ", ".join(item.name for item in dataclasses.fields(Job))
"""What a `Job` is made of: every column but the payload."""

OUTCOME_COLUMNS = ", ".join(item.name for item in dataclasses.fields(DocumentOutcome))

_JOB = tuple(item.name for item in dataclasses.fields(Job))
_PROGRESS = {item.name for item in dataclasses.fields(Progress)}


def job_of(row: RowMapping) -> Job:
    """A job from its row; columns beyond a job's own are ignored."""
    values: dict[str, Any] = {name: row[name] for name in _JOB}
    values.update(
        kind=JobKind(row["kind"]),
        status=Status(row["status"]),
        stage=Stage(row["stage"]),
        priority=Priority(row["priority"]),
        needs=tuple(row["needs"]),
        progress=progress_of(row["progress"]),
    )
    return Job(**values)


def progress_of(stored: Mapping[str, Any]) -> Progress:
    """Progress from its stored form; numbers that another release added are ignored."""
    return Progress(**{name: value for name, value in stored.items() if name in _PROGRESS})


def outcome_of(row: RowMapping) -> DocumentOutcome:
    """An outcome from its row."""
    return DocumentOutcome(**{**row, "status": OutcomeStatus(row["status"])})
