-- Jobs. `doc` is the whole mutable state (job, steps, attempts) as JSON; the other columns are what queries need.
-- Times are milliseconds since the Unix epoch.
CREATE TABLE jobs (
    job_id            TEXT PRIMARY KEY,
    token_hash        BLOB NOT NULL UNIQUE,
    user_id           TEXT NOT NULL,
    state             TEXT NOT NULL,
    doc               TEXT NOT NULL,
    created_ms        INTEGER NOT NULL,
    ended_ms          INTEGER,
    -- The driver's lease. The epoch rises with every claim and fences the writes of drivers that lost it.
    lease_owner       TEXT,
    lease_epoch       INTEGER NOT NULL,
    lease_until_ms    INTEGER NOT NULL,
    -- 0: may go unfetched for ever.
    fetch_timeout_ms  INTEGER NOT NULL,
    fetched_ms        INTEGER NOT NULL,
    -- Where Fetch with a plain token goes on.
    plain_cursor      INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX jobs_live ON jobs (lease_until_ms) WHERE ended_ms IS NULL;
CREATE INDEX jobs_ended ON jobs (ended_ms) WHERE ended_ms IS NOT NULL;

-- The program, which never changes: its text, the first characters of each statement (a JSON array), and what the
-- submitter of each step is to do (JSON).
CREATE TABLE programs (
    job_id     TEXT PRIMARY KEY REFERENCES jobs (job_id) ON DELETE CASCADE,
    sql        TEXT NOT NULL,
    headings   TEXT NOT NULL
) STRICT;
CREATE TABLE step_specs (
    job_id     TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
    step       INTEGER NOT NULL,
    spec       TEXT NOT NULL,
    PRIMARY KEY (job_id, step)
) STRICT, WITHOUT ROWID;

-- Secrets have a table of their own; a job's are deleted when it ends.
CREATE TABLE secrets (
    job_id     TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
    name       TEXT NOT NULL,
    value      TEXT NOT NULL,
    PRIMARY KEY (job_id, name)
) STRICT, WITHOUT ROWID;

-- When a server was last there to answer a Fetch: one row.
CREATE TABLE presence (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    alive_ms   INTEGER NOT NULL
) STRICT;
