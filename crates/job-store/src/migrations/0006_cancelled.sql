-- A cancelled job has a word of its own, for lists and counts. A document may be damaged.
UPDATE jobs SET state = 'cancelled'
    WHERE state = 'failed'
      AND CASE WHEN json_valid(doc) THEN json_extract(doc, '$.state.failed.cause') END IN ('cancelled', 'not_fetched');
