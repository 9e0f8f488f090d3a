-- Each write of a job's state gives it the next number. Servers ask which jobs have a higher one than they have seen, and
-- so learn of each other's writes. The last number has a row of its own: it must not fall when its job is removed.
CREATE TABLE revisions (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    last    INTEGER NOT NULL
) STRICT;
INSERT INTO revisions VALUES (1, 0);
-- 0: not written since the column is there.
ALTER TABLE jobs ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
CREATE INDEX jobs_by_revision ON jobs (revision);
