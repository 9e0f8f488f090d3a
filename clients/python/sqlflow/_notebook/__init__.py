"""What a notebook shows of a job. `sqlflow.magic` uses it."""
