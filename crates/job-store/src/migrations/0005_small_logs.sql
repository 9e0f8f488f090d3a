-- The result logs of jobs that say little: bytes as in the first segment of a log in a folder, in the parts in which they were
-- appended. They go with their job.
CREATE TABLE small_logs (
    job_id     TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
    -- Where in the log the part begins.
    first_byte INTEGER NOT NULL,
    -- NULL: the log is frozen, so nothing is appended here any more. It is in a folder, or about to be.
    bytes      BLOB,
    PRIMARY KEY (job_id, first_byte)
) STRICT, WITHOUT ROWID;
