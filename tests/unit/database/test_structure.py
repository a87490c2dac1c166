"""What a backup may say about LightRAG's tables: forms that LightRAG uses, and nothing that could run."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from shield.database.backup.structure import ColumnDef, ConstraintDef, IndexDef, TableDef


@pytest.mark.parametrize(
    "definition",
    [
        "btree (workspace, id)",
        "btree (workspace, status, created_at NULLS FIRST, id)",
        "btree (workspace, updated_at DESC)",
        "hnsw (content_vector vector_cosine_ops) WITH (m='16', ef_construction='64')",
        "btree (workspace, content_hash) WHERE ((content_hash IS NOT NULL) AND (content_hash <> ''::text))",
        'btree (workspace, namespace) WHERE ((src_id COLLATE "C") > (tgt_id COLLATE "C"))',
    ],
)
def test_lightrags_indexes_are_known(definition: str) -> None:
    assert IndexDef(name="i", unique=False, definition=definition).definition == definition


@pytest.mark.parametrize(
    "definition",
    [
        "btree (id); DROP TABLE jobs",
        "btree (pg_read_file('/etc/passwd'))",
        "btree ((lo_import('/etc/passwd')::text))",
        'btree ("evil"(id))',
        "btree (public.evil (id))",
        "btree (id) WHERE (evil(id))",
        "btree (id) -- WHERE",
        "btree (id) /* */",
        "btree (id) WHERE (x = $$y$$)",
        "spgist (id)",
        "",
    ],
)
def test_an_index_that_calls_or_hides_something_is_refused(definition: str) -> None:
    with pytest.raises(ValidationError):
        IndexDef(name="i", unique=False, definition=definition)


@pytest.mark.parametrize("kind", ["text", "vector(384)", "character varying(255)[]", "timestamp(0) without time zone", "jsonb"])
@pytest.mark.parametrize("default", [None, "'{}'::jsonb", "CURRENT_TIMESTAMP", "now()", "'raw'::character varying"])
def test_lightrags_columns_are_known(kind: str, default: str | None) -> None:
    assert ColumnDef(name="c", type=kind, not_null=True, default=default).type == kind


@pytest.mark.parametrize(
    ("kind", "default"),
    [
        ("text, evil text", None),
        ("regclass", None),
        ("text\n", None),
        ("text", "pg_sleep(10)"),
        ("text", "'a'::text); DROP TABLE jobs; --"),
        ("text", "'a\\'::text"),
        ("text", "nextval('jobs_seq'::regclass)"),
    ],
)
def test_a_column_of_another_form_is_refused(kind: str, default: str | None) -> None:
    with pytest.raises(ValidationError):
        ColumnDef(name="c", type=kind, not_null=False, default=default)


@pytest.mark.parametrize("definition", ["CHECK (evil())", "FOREIGN KEY (a) REFERENCES jobs(id)", "PRIMARY KEY (a); DROP TABLE jobs"])
def test_a_constraint_of_another_form_is_refused(definition: str) -> None:
    with pytest.raises(ValidationError):
        ConstraintDef(name="c", definition=definition)


@pytest.mark.parametrize("name", ["", "Jobs", 'x"; DROP TABLE jobs; --', "a" * 64, "1a", "a.b"])
def test_a_name_is_a_plain_name(name: str) -> None:
    with pytest.raises(ValidationError):
        TableDef(name=name, columns=("id",))
