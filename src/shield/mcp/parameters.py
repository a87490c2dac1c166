"""Parameters that several tools share; limits and descriptions are those of the request models."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import Field, StringConstraints

from shield.mcp.toolbox import like
from shield.service.models import CrawlSpec, FilterInput, FindRequest, KbName, QueryRequest, SourceName
from shield.service.models import Metadata as MetadataInput

Base = Annotated[KbName, Field(description="Name of the knowledge base; list_knowledge_bases shows yours. An unknown one is an error.")]
JobIdText = Annotated[UUID, Field(description="The job_id that a tool returned.")]
DocumentIdText = Annotated[UUID, Field(description="A document_id from a search, a job's outcomes or list_documents.")]
Cursor = Annotated[str | None, Field(max_length=2048, description="next_cursor of the answer before, to read on.")]
Limit = Annotated[int, Field(ge=1, le=100, description="Most entries an answer holds.")]
Metadata = Annotated[MetadataInput | None, like(CrawlSpec, "metadata")]
Title = Annotated[Annotated[str, StringConstraints(max_length=500)] | None, Field(description="Its title; default: the one found in it.")]
Filters = Annotated[FilterInput | None, like(FindRequest, "filters")]
QueryFilters = Annotated[FilterInput | None, like(QueryRequest, "filters")]
MaxTokens = Annotated[int, like(FindRequest, "max_tokens")]
SourcePrefix = Annotated[SourceName | None, Field(description="Only sources that begin with this, for example https://docs.example.org/.")]
