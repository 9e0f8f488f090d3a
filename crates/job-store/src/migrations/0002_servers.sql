-- One lease per server instead of one per job: a server's heartbeat prolongs its row here, and a job's lease is live
-- while its owner's row is. An owner of '' is nobody: the job may be claimed at once.
CREATE TABLE servers (
    server_id         TEXT PRIMARY KEY,
    alive_until_ms    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO servers
    SELECT lease_owner, MAX(lease_until_ms) FROM jobs
    WHERE ended_ms IS NULL AND lease_owner IS NOT NULL GROUP BY lease_owner;
UPDATE jobs SET lease_owner = '' WHERE lease_owner IS NULL;
-- `jobs.lease_until_ms` is read no more. New rows have the largest integer there: a server of before that still runs
-- takes such a job only when its owner's lock shows that the owner is gone.
DROP INDEX jobs_live;
CREATE INDEX jobs_owned ON jobs (lease_owner, job_id) WHERE ended_ms IS NULL;

-- When the fetch timeout of a live job is over.
CREATE INDEX jobs_fetch_due ON jobs (fetched_ms + fetch_timeout_ms, job_id)
    WHERE ended_ms IS NULL AND fetch_timeout_ms > 0;
-- With the id, retention can go on where it stopped.
DROP INDEX jobs_ended;
CREATE INDEX jobs_ended ON jobs (ended_ms, job_id) WHERE ended_ms IS NOT NULL;

-- Version of the document: a server that knows only older ones does not write it, for it would drop what it does not
-- know. Rows of before have 1.
ALTER TABLE jobs ADD COLUMN doc_version INTEGER NOT NULL DEFAULT 1;
-- What the document was before it was found to be damaged.
ALTER TABLE jobs ADD COLUMN damaged_doc TEXT;
-- Keyed hash of what Run was asked, of jobs that were run with a request id.
ALTER TABLE jobs ADD COLUMN request_hash BLOB;

-- Listings by user, by state, and by both, newest first.
CREATE INDEX jobs_by_user ON jobs (user_id, state, job_id);
CREATE INDEX jobs_by_state ON jobs (state, job_id);

-- How many jobs are in each state; kept by triggers, since counting all rows takes longer than a probe may.
CREATE TABLE job_counts (
    state    TEXT PRIMARY KEY,
    jobs     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO job_counts SELECT state, count(*) FROM jobs GROUP BY state;
CREATE TRIGGER jobs_counted_in AFTER INSERT ON jobs BEGIN
    INSERT INTO job_counts VALUES (NEW.state, 1) ON CONFLICT (state) DO UPDATE SET jobs = jobs + 1;
END;
CREATE TRIGGER jobs_counted_out AFTER DELETE ON jobs BEGIN
    UPDATE job_counts SET jobs = jobs - 1 WHERE state = OLD.state;
END;
CREATE TRIGGER jobs_counted_on AFTER UPDATE OF state ON jobs WHEN NEW.state <> OLD.state BEGIN
    UPDATE job_counts SET jobs = jobs - 1 WHERE state = OLD.state;
    INSERT INTO job_counts VALUES (NEW.state, 1) ON CONFLICT (state) DO UPDATE SET jobs = jobs + 1;
END;
