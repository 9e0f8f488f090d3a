"""The data process for DuckDB, which has no driver in the static program `sqlflow-data`.

It speaks the same interface: the submitter channel to its agent, and the link to the submitter. It runs no user code.

```text
__main__ ─▶ process ─ statements ─▶ session ─▶ arrays ─▶ shown_rows, column_file
               └──── serve ─▶ checks, result_table
```
"""
