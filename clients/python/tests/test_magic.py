"""`%%sqlflow` in a real IPython kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from kernel import Kernel
from real_server import ENDLESS, RealServer

import sqlflow

TRAIN = """
SELECT * FROM iris WHERE rowid % 5 > 0 TO TRAIN xgboost.gbtree
WITH train.num_boost_round = 4, validation.select = "SELECT * FROM iris WHERE rowid % 5 = 0"
LABEL class INTO {name};
"""


@pytest.fixture(scope="module")
def shared(server: RealServer) -> Iterator[Kernel]:
    with Kernel() as kernel:
        assert kernel.run("%load_ext sqlflow").status == "ok"
        assert "connected" in kernel.run(f"%sqlflow connect --server {server.address}").text
        yield kernel


def test_table_is_shown_and_bound(shared: Kernel) -> None:
    outputs = shared.run("%%sqlflow counts\nSELECT 1; SELECT class, count(*) AS n FROM iris GROUP BY class")
    assert outputs.status == "ok", outputs.text
    tables = outputs.of_type("text/html")
    assert any("<th>n</th>" in table and "<td>50</td>" in table for table in tables), tables
    assert "succeeded" in outputs.text
    assert shared.value("type(counts).__name__, counts['n'].sum()") == "DataFrame 150"


def test_training_shows_progress_curves_and_model(shared: Kernel) -> None:
    outputs = shared.run("%%sqlflow" + TRAIN.format(name="in_notebook"))
    assert outputs.status == "ok", outputs.text
    assert "model in_notebook published" in outputs.text
    curves = outputs.of_type("image/png")
    assert len(curves) >= 1 and all(curve == curves[0] or len(curve) > 1000 for curve in curves)
    assert any(
        "<details style='padding:0 0.5em'><summary" in page and "log, " in page for page in outputs.of_type("text/html")
    )
    assert outputs.of_type("application/vnd.jupyter.widget-view+json"), "a bar of tqdm"


def test_explain_shows_its_plot(shared: Kernel, flowers: str) -> None:
    outputs = shared.run(f"%%sqlflow\nSELECT * FROM iris TO EXPLAIN {flowers};")
    assert outputs.status == "ok", outputs.text
    assert len(outputs.of_type("image/png")) == 1


def test_error_is_brief_and_ends_the_cell(shared: Kernel) -> None:
    outputs = shared.run("%%sqlflow never\nSELECT * FROM no_such_table")
    assert outputs.status == "error"
    assert "JobFailed: job" in outputs.text and "no_such_table" in outputs.text
    assert "Traceback" not in outputs.text and "magic.py" not in outputs.text
    assert shared.value("'never' in globals()") == "False"
    rejected = shared.run("%%sqlflow\nSELECT * FROM iris TO TRAIN")
    assert rejected.status == "error" and "InvalidProgram: line 2" in rejected.text and "^" in rejected.text


def test_values_are_escaped(shared: Kernel) -> None:
    outputs = shared.run("%%sqlflow\nSELECT '<script>alert(1)</script>' AS \"<b>\"")
    assert outputs.status == "ok" and not any(
        "<script>" in page or "<b>" in page for page in outputs.of_type("text/html")
    )


def test_long_text_is_shown_unless_pandas_has_another_limit(shared: Kernel) -> None:
    program = "%%sqlflow\nSELECT replace(hex(zeroblob(60)), '0', 'x') AS text"
    assert any("x" * 120 in table for table in shared.run(program).of_type("text/html"))
    shared.run("import pandas; pandas.set_option('display.max_colwidth', 20)")
    assert not any("x" * 20 in table for table in shared.run(program).of_type("text/html"))
    shared.run("pandas.reset_option('display.max_colwidth')")


def test_long_table_is_cut_unless_it_is_bound(shared: Kernel) -> None:
    many = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 2500) SELECT x FROM c"
    assert "the first 1,000 of 2,500 rows" in shared.run(f"%%sqlflow\n{many}").text
    shared.run(f"%%sqlflow numbers\n{many}")
    assert shared.value("len(numbers)") == "2500"
    limited = shared.run(f"%%sqlflow fewer --max-rows 2499\n{many}")
    assert limited.status == "error" and "ResultTooLarge" in limited.text


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("%%sqlflow not-a-name\nSELECT 1", "is not a name for a variable"),
        ("%%sqlflow a --detach\nSELECT 1", "a detached job has no result yet"),
        ("%%sqlflow --nonsense\nSELECT 1", "unrecognized arguments: --nonsense"),
        ("%sqlflow nonsense", "invalid choice: 'nonsense'"),
        ("%sqlflow attach 0", "give at least|its token is not stored"),
        ("%%sqlflow a\nCREATE TABLE IF NOT EXISTS unbound (a INTEGER)", "a is not bound"),
    ],
)
def test_wrong_use_says_why(cell: str, why: str, shared: Kernel) -> None:
    text = shared.run(cell).text
    assert any(part in text for part in why.split("|")), text


def test_interrupt_cancels_the_job(shared: Kernel, client: sqlflow.Client) -> None:
    interrupts = iter([shared.interrupt])

    def interrupt_once(message: dict[str, Any]) -> None:
        if "statement 1" in message["content"].get("data", {}).get("text/plain", ""):
            next(interrupts, lambda: None)()

    outputs = shared.run(f"%%sqlflow\n{ENDLESS}", interrupt_once)
    assert outputs.status == "error", "cells behind it do not run"
    assert "was cancelled" in outputs.text and "magic.py" not in outputs.text
    assert client.job("last").info().state is sqlflow.State.CANCELLED


def test_detached_job_is_shown_after_a_restart_of_the_kernel(server: RealServer) -> None:
    with Kernel() as kernel:
        kernel.run("%load_ext sqlflow.magic")
        program = TRAIN.format(name="detached") + "SELECT 42 AS answer;"
        detached = kernel.run(f"%%sqlflow --server {server.address} --detach\n{program}")
        assert detached.status == "ok" and "%sqlflow attach" in detached.text
        kernel.restart()
        kernel.run("%load_ext sqlflow")
        attached = kernel.run(f"%sqlflow attach last answers --server {server.address}")
        assert attached.status == "ok", attached.text
        assert "model detached published" in attached.text and attached.of_type("image/png")
        assert kernel.value("answers['answer'].tolist()") == "[42]"
        jobs = kernel.run(f"%sqlflow jobs --server {server.address}")
        assert "SUCCEEDED" in jobs.text
        assert "has ended" in kernel.run(f"%sqlflow cancel --server {server.address}").text


def test_reason_why_a_job_waits_is_shown() -> None:
    """Without a kernel, since a local server never lets a job wait for long."""
    from sqlflow._notebook.view import View
    from sqlflow.events import Pending, Reconnecting

    class Lines:
        def __init__(self) -> None:
            self.said: list[str] = []

        def status(self, text: str, tone: str = "dim") -> None:
            self.said.append(text)

    lines = Lines()
    view = View("j", lines)  # type: ignore[arg-type]
    view.show(Pending(position=1, message="no node has 64 GiB of free memory"))
    view.show(Pending(position=2, message="waiting for a run slot, 3 before it"))
    view.show(Reconnecting(position=2, message="the server does not answer"))
    assert lines.said == [
        "job j: waiting: no node has 64 GiB of free memory",
        "job j: waiting for a run slot, 3 before it",
        "the server does not answer",
    ]


def test_terminal_gets_lines(server: RealServer, flowers: str, capsys: pytest.CaptureFixture[str]) -> None:
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "sqlflow")
    shell.run_line_magic("sqlflow", f"connect --server {server.address}")
    shell.run_cell(f"%%sqlflow found\nSELECT * FROM iris TO EXPLAIN {flowers}; SELECT 'a' || char(27) || 'b' AS text")
    said = capsys.readouterr().out
    assert "EXPLAIN model flowers" in said, "the log, at once"
    assert "image/png" in said and "a\\x1bb" in said and "succeeded" in said
    assert "\x1b]" not in said and shell.user_ns["found"]["text"][0] == "a\x1bb"
