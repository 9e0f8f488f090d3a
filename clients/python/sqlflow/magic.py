"""The notebook's `%sqlflow` and `%%sqlflow`: `%load_ext sqlflow`, or `%load_ext sqlflow.magic`.

    %%sqlflow [NAME] [--datasource SOURCE] [--server ADDRESS] [--detach] [--quiet] [--max-rows N]
    program

runs a program and shows its tables, progress, curves and plots. NAME becomes a variable with the last table.
Ctrl+C, or the button that interrupts the kernel, cancels the job. With `--detach` the cell ends at once, and the
job continues. `--quiet` shows tables, plots and models only. A variable has at most ten million rows, or
`--max-rows`.

    %sqlflow connect [ADDRESS] [--datasource SOURCE]    settings of later cells
    %sqlflow attach [JOB] [NAME]     shows a job from its start, also after a restart of the kernel
    %sqlflow cancel [JOB]            cancels it
    %sqlflow jobs                    lists your jobs

Without JOB it is the last one.
"""

from __future__ import annotations

import argparse
import importlib.util
import shlex
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, cast

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class

from sqlflow._notebook.outputs import NotebookOutputs, Outputs, TerminalOutputs, clean
from sqlflow._notebook.view import View
from sqlflow.connection import Client, connect
from sqlflow.errors import Error
from sqlflow.events import Columns, Event, JobEnded, Rows
from sqlflow.job import Job
from sqlflow.result import MAX_ROWS, Collector

_HELP = (__doc__ or "").strip()

NEEDED = ("matplotlib", "pandas", "tqdm")
"""Packages of the extra `notebook` without which nothing can be shown."""


class _Parser(argparse.ArgumentParser):
    """Raises errors instead of ending the kernel."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\n{self.format_usage()}")


def _cell_parser() -> _Parser:
    parser = _Parser(prog="%%sqlflow", add_help=False)
    _add_view(parser)
    parser.add_argument("--detach", action="store_true", help="end the cell at once; the job continues")
    _add_datasource(parser)
    _add_server(parser)
    return parser


def _line_parser() -> _Parser:
    parser = _Parser(prog="%sqlflow", add_help=False)
    commands = parser.add_subparsers(dest="command", required=True)

    connect = commands.add_parser("connect", add_help=False)
    server = connect.add_mutually_exclusive_group()
    server.add_argument("server", metavar="ADDRESS", nargs="?", default=argparse.SUPPRESS)
    _add_server(server)
    _add_datasource(connect)

    attach = commands.add_parser("attach", add_help=False)
    _add_job(attach)
    _add_view(attach)
    _add_server(attach)

    cancel = commands.add_parser("cancel", add_help=False)
    _add_job(cancel)
    _add_server(cancel)

    _add_server(commands.add_parser("jobs", add_help=False))
    return parser


def _add_server(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--server", metavar="ADDRESS", help="address of the server")


def _add_datasource(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--datasource", metavar="SOURCE", help="data source of the program")


def _add_job(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("job", nargs="?", default="last", help="token, id, beginning of an id, or last")


def _add_view(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("name", nargs="?", help="variable for the last table, as a DataFrame")
    parser.add_argument("--quiet", action="store_true", help="show tables, plots and models only")
    parser.add_argument("--max-rows", type=int, help="limit for the rows of the variable")


@magics_class
class SQLFlowMagics(Magics):
    """`%sqlflow` and `%%sqlflow`."""

    def __init__(self, shell: Any):
        super().__init__(shell)
        self._server: str | None = None
        self._datasource: str | None = None
        self._clients: dict[str | None, Client] = {}

    @line_cell_magic
    def sqlflow(self, line: str, cell: str | None = None) -> Any:
        words = _words(line)
        if "--help" in words or "-h" in words:
            print(_HELP)
            return None
        try:
            if cell is None:
                return self._command(_line_parser().parse_args(words))
            return self._cell(_cell_parser().parse_args(words), cell)
        except Error as error:
            raise _brief(error) from None

    # What `%sqlflow?` shows.
    sqlflow.__doc__ = _HELP

    def _command(self, arguments: argparse.Namespace) -> Any:
        match arguments.command:
            case "connect":
                client = self._client(arguments)
                client.jobs(limit=1)
                # Only now: later cells must not go to a server that does not answer.
                self._server = arguments.server or self._server
                self._datasource = arguments.datasource or self._datasource
                print(f"connected to {client.address.server}")
                return None
            case "attach":
                _check_variable(arguments)
                return self._show(self._client(arguments).job(arguments.job), arguments)
            case "cancel":
                job = self._client(arguments).job(arguments.job)
                state = job.cancel().state
                print(f"job {job.id} {'has ended' if state.is_terminal else 'is being cancelled'}")
                return None
            case _:
                return self._jobs(self._client(arguments))

    def _jobs(self, client: Client) -> Any:
        import pandas

        rows = [
            {
                "job": it.id,
                "state": it.state.value,
                # Milliseconds would only make the table wider.
                "created": it.created.replace(microsecond=0) if it.created else None,
                "program": it.title,
                "message": it.message,
            }
            for it in client.jobs()
        ]
        return pandas.DataFrame(rows, columns=["job", "state", "created", "program", "message"])

    def _cell(self, arguments: argparse.Namespace, program: str) -> None:
        _check_variable(arguments)
        if arguments.detach and arguments.name:
            raise UsageError("a detached job has no result yet; give the name to %sqlflow attach JOB NAME")
        client = self._client(arguments)
        job = client.run(program, datasource=arguments.datasource or self._datasource)
        if arguments.detach:
            print(f"job {job.id} runs; to see it, also after a restart of the kernel: %sqlflow attach {job.id}")
            return
        self._show(job, arguments)

    def _client(self, arguments: argparse.Namespace) -> Client:
        server = arguments.server or self._server
        if server not in self._clients:
            self._clients[server] = connect(server)
        return self._clients[server]

    def _show(self, job: Job, arguments: argparse.Namespace) -> None:
        """Shows a job until it ends, and binds its last table. An interrupt cancels it."""
        view = View(job.id, self._outputs(), arguments.quiet)
        limit = MAX_ROWS if arguments.max_rows is None else arguments.max_rows
        last = LastTable(job.id, limit) if arguments.name else None
        add: Callable[[Event], None] = last.add if last is not None else _ignore
        position, ended = 0, None
        try:
            for event in job.events(after=0):
                position = event.position
                view.show(event)
                add(event)
                ended = event if isinstance(event, JobEnded) else None
        except KeyboardInterrupt:
            self._cancel(job, view, position)
            raise _brief(KeyboardInterrupt(f"job {job.id} was cancelled")) from None
        except Error:
            view.leave(f"job {job.id}: the rest is not shown; if it still runs, it continues: %sqlflow attach {job.id}")
            raise
        failure = ended.error() if ended is not None else None
        if failure is not None:
            raise failure
        if last is not None:
            self._bind(arguments.name, last, job)

    def _cancel(self, job: Job, view: View, position: int) -> None:
        """Cancels the job, and shows what it still reports. Another interrupt stops waiting."""
        view.interrupted()
        try:
            job.cancel()
            for event in job.events(after=position):
                view.show(event)
        except (KeyboardInterrupt, Error) as error:
            why = "" if isinstance(error, KeyboardInterrupt) else f" ({error})"
            view.leave(f"job {job.id}: its end was not awaited{why}; see %sqlflow attach {job.id}")

    def _bind(self, name: str, last: LastTable, job: Job) -> None:
        table = last.collector.result()
        if not table.tables:
            raise UsageError(f"{name} is not bound: the program of job {job.id} returned no rows; end it with a SELECT")
        cast(Any, self.shell).push({name: table.to_pandas()})

    def _outputs(self) -> Outputs:
        return NotebookOutputs() if hasattr(self.shell, "kernel") else TerminalOutputs()


class LastTable:
    """Collects the last table of a job. Earlier ones are dropped as soon as another begins."""

    def __init__(self, job: str, max_rows: int):
        self._job = job
        self._max_rows = max_rows
        self.collector = self._new()

    def add(self, event: Event) -> None:
        """Adds an event.

        Raises:
            ResultTooLarge: the table has too many rows.
        """
        match event:
            case Columns():
                self.collector = self._new()
                self.collector.add(event)
            case Rows():
                self.collector.add(event)
            case _:
                pass

    def _new(self) -> Collector:
        return Collector(self._job, self._max_rows, "give a larger --max-rows, or no variable")


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        # A quote that is not closed.
        raise UsageError(f"cannot read {line!r}: {error}") from None


def _ignore(event: Event) -> None:
    return


def _check_variable(arguments: argparse.Namespace) -> None:
    name = arguments.name
    if name is not None and not name.isidentifier():
        raise UsageError(f"{name!r} is not a name for a variable")
    if name is None and arguments.max_rows is not None:
        raise UsageError("--max-rows is the limit for a variable; give the variable's name, too")


def _brief(error: BaseException) -> BaseException:
    """The error without a traceback of this package, which says nothing to the author of a cell."""
    kind, text = type(error).__name__, clean(str(error))

    def lines(*ignored: Any) -> Sequence[str]:
        return [f"{kind}: {text}"]

    error._render_traceback_ = lines  # type: ignore[attr-defined]
    return error


def load_ipython_extension(shell: Any) -> None:
    """Called by `%load_ext`.

    Raises:
        UsageError: a package is not installed, which would end a cell in the middle of its job.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"cannot load %sqlflow: packages are not installed; run %pip install {' '.join(missing)}")
    shell.register_magics(SQLFlowMagics)
