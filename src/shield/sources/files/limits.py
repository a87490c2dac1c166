"""The limits a conversion works under, in a form that travels to the child as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from shield.settings import FileSettings


@dataclass(frozen=True)
class Limits:
    """See `FileSettings` for what each one means."""

    max_bytes: int
    max_pages: int
    max_zip_entries: int
    max_zip_bytes: int
    max_zip_ratio: int
    max_xml_bytes: int
    max_cells: int
    max_csv_rows: int
    max_html_depth: int
    max_text_bytes: int

    @classmethod
    def of(cls, settings: FileSettings) -> Self:
        """The limits that the settings name."""
        return cls(**{name: int(getattr(settings, name)) for name in cls.__dataclass_fields__})

    def as_json(self) -> dict[str, Any]:
        """For the wire."""
        return asdict(self)
