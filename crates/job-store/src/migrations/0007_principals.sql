-- Who ran the job, as the server knows them: `unix:ana`. `user_id` is what the session says, for listings. NULL: an
-- older server recorded the job; it belongs to the administrators.
ALTER TABLE jobs ADD COLUMN principal TEXT;
CREATE INDEX jobs_by_principal ON jobs (principal, state, job_id);

-- Whose a model is: the principal whose job was the first that was granted to publish it, until it is dropped.
CREATE TABLE models (
    name         TEXT PRIMARY KEY,
    principal    TEXT NOT NULL
) STRICT, WITHOUT ROWID;
