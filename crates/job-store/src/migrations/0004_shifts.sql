-- Nothing changes here, but the logs beside this file may hold positions with shifts, which an older server would take for
-- others: it refuses a file with this version.
SELECT 1;
