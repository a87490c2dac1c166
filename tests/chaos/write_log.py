"""A log, kept by the database, of who wrote what under which right; and the writes that had none.

`install(dsn)` puts triggers on LightRAG's tables (those made later too), on `job_outcomes` and on `documents`. Each write leaves a row in
`chaos_writes` in its own transaction, so only what is committed is in the log; a deferred trigger adds, in the last moment before the commit, which
right was current then. The product's own fences are not asked: with a fence that is broken on purpose the log still tells the truth.

`violations(dsn)` lists the committed writes that
- carried another epoch than the current one of their knowledge base, or touched rows of another knowledge base than their own;
- added or changed an outcome of a job that nobody held, or whose fence moved on before the commit;
- made a revision live that an outdated run of its job, or of a job that nobody held, had written.

Needs a superuser (event trigger). Cost: about 1 ms a statement.
"""

from __future__ import annotations

import psycopg

_INSTALL = """
CREATE TABLE IF NOT EXISTS chaos_writes (
  id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), txid bigint NOT NULL DEFAULT txid_current(),
  kind text NOT NULL, what text NOT NULL, subject text, carried bigint, foreign_rows bigint NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS chaos_commits (id bigint PRIMARY KEY, current bigint, held boolean);

-- A write to one of LightRAG's tables: its session's epoch, and rows that are not its knowledge base's.
CREATE OR REPLACE FUNCTION chaos_graph() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE kb text := coalesce(current_setting('shield.kb', true), ''); strangers bigint; touched bigint;
BEGIN
  SELECT count(*), count(*) FILTER (WHERE workspace <> kb) INTO touched, strangers FROM changed;
  IF touched > 0 THEN
    INSERT INTO chaos_writes (kind, what, subject, carried, foreign_rows)
    VALUES ('graph', TG_TABLE_NAME || ' ' || TG_OP, kb, coalesce(nullif(current_setting('shield.epoch', true), ''), '0')::bigint, strangers);
  END IF;
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION chaos_watch(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = name::regclass AND tgname = 'chaos_insert') THEN RETURN; END IF;
  EXECUTE format('CREATE TRIGGER chaos_insert AFTER INSERT ON %s REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION chaos_graph()', name);
  EXECUTE format('CREATE TRIGGER chaos_update AFTER UPDATE ON %s REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION chaos_graph()', name);
  EXECUTE format('CREATE TRIGGER chaos_delete AFTER DELETE ON %s REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION chaos_graph()', name);
END $$;

CREATE OR REPLACE FUNCTION chaos_new_table() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE made record;
BEGIN
  FOR made IN SELECT c.oid::regclass::text AS name FROM pg_event_trigger_ddl_commands() d JOIN pg_class c ON c.oid = d.objid
               WHERE d.command_tag = 'CREATE TABLE' AND c.relkind = 'r' AND starts_with(c.relname, 'lightrag_') LOOP
    PERFORM chaos_watch(made.name);
  END LOOP;
END $$;

-- An outcome: the job's fence as it stood at the statement.
CREATE OR REPLACE FUNCTION chaos_outcome() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO chaos_writes (kind, what, subject, carried)
  SELECT 'outcome', 'outcome ' || NEW.number || ' ' || NEW.status, NEW.job_id::text, j.fence FROM jobs j WHERE j.id = NEW.job_id;
  RETURN NULL;
END $$;

-- A revision that becomes live: the job and the fence that wrote it. Notes have no job.
CREATE OR REPLACE FUNCTION chaos_live() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO chaos_writes (kind, what, subject, carried)
  SELECT 'live', 'document ' || NEW.id || ' revision ' || NEW.live_revision, r.job_id::text, r.fence
    FROM document_revisions r WHERE r.document_id = NEW.id AND r.revision = NEW.live_revision AND r.job_id IS NOT NULL AND r.fence IS NOT NULL;
  RETURN NULL;
END $$;

-- In the last moment: which right is current. A job nobody has claimed yet (fence 0) may get outcomes from the one it repeats.
CREATE OR REPLACE FUNCTION chaos_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.kind = 'graph' THEN
    INSERT INTO chaos_commits SELECT NEW.id, (SELECT epoch FROM kb_writer WHERE kb = NEW.subject), true;
  ELSE
    INSERT INTO chaos_commits
    SELECT NEW.id, j.fence, (j.status = 'processing' AND NOT j.parked) OR (j.fence = 0 AND NEW.kind = 'outcome')
           OR EXISTS (SELECT 1 FROM jobs o WHERE o.id = j.id AND o.xmin::text::bigint = (NEW.txid % 4294967296))
      FROM jobs j WHERE j.id = NEW.subject::uuid;
  END IF;
  RETURN NULL;
END $$;

DROP TRIGGER IF EXISTS chaos_commit ON chaos_writes;
CREATE CONSTRAINT TRIGGER chaos_commit AFTER INSERT ON chaos_writes DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION chaos_commit();
CREATE OR REPLACE TRIGGER chaos_outcome AFTER INSERT OR UPDATE ON job_outcomes FOR EACH ROW EXECUTE FUNCTION chaos_outcome();
CREATE OR REPLACE TRIGGER chaos_live AFTER UPDATE OF live_revision ON documents FOR EACH ROW
  WHEN (NEW.live_revision IS NOT NULL AND NEW.live_revision IS DISTINCT FROM OLD.live_revision) EXECUTE FUNCTION chaos_live();
DROP EVENT TRIGGER IF EXISTS chaos_new_table;
CREATE EVENT TRIGGER chaos_new_table ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION chaos_new_table();
SELECT chaos_watch(c.oid::regclass::text) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND n.nspname = 'public' AND starts_with(c.relname, 'lightrag_');
"""

_VIOLATIONS = """
SELECT w.kind, w.what, w.subject, w.carried, c.current, c.held, w.foreign_rows, w.txid FROM chaos_writes w LEFT JOIN chaos_commits c USING (id)
 WHERE c.id IS NULL OR w.foreign_rows > 0 OR NOT c.held OR c.current IS NULL
    OR (w.kind = 'graph' AND w.carried <> c.current) OR (w.kind <> 'graph' AND w.carried <> c.current)
 ORDER BY w.id
"""


def install(dsn: str) -> None:
    """Begin the log; harmless when it has begun already."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_INSTALL.encode())


def written(dsn: str) -> dict[str, int]:
    """How many writes of each kind are in the log: a run that proves nothing shows it here."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        return dict(connection.execute("SELECT kind, count(*) FROM chaos_writes GROUP BY 1").fetchall())


def violations(dsn: str) -> list[str]:
    """Committed writes without the right to write, each in a sentence; empty is what a run must show."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        rows = connection.execute(_VIOLATIONS).fetchall()
    return [
        f"{kind}: {what} of {subject} committed in transaction {txid} with {carried}, current was {current}"
        + ("" if held else ", nobody held it")
        + (f", {strangers} rows of another knowledge base" if strangers else "")
        for kind, what, subject, carried, current, held, strangers, txid in rows
    ]
