"""A server with Fisher's irises, and clients of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import servers
from real_server import RealServer, iris

import sqlflow


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of compiled clients first, so that one worker runs them all and compiles each client once."""
    items.sort(key=lambda item: "page_client" not in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home folder of its own: tests must not use the tokens and the login of who runs them."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        for name in list(os.environ):
            if name.startswith(("SQLFLOW_", "XDG_")) and not name.startswith("SQLFLOW_TEST_"):
                patch.delenv(name)
        yield folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A server that no test ends."""
    folder = tmp_path_factory.mktemp("server")
    with RealServer(folder, f"sqlite:///{iris(folder / 'iris.db')}") as running:
        yield running


@pytest.fixture
def client(server: RealServer) -> Iterator[sqlflow.Client]:
    with sqlflow.connect(server.address) as connected:
        yield connected


@pytest.fixture(scope="session")
def sqlite_dsn(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite://{tmp_path_factory.mktemp('sqlite')}/data.db?mode=rwc"


@pytest.fixture(scope="session")
def duckdb_dsn(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"duckdb://{tmp_path_factory.mktemp('duckdb')}/data.duckdb?mode=rwc"


@pytest.fixture(scope="session")
def mysql_dsn() -> Iterator[str]:
    with servers().mariadb() as dsn:
        yield dsn


@pytest.fixture(scope="session")
def postgresql_dsn() -> Iterator[str]:
    with servers().postgresql() as dsn:
        yield dsn


@pytest.fixture(params=["sqlite", "duckdb", "mysql", "postgresql"])
def dsn(request: pytest.FixtureRequest) -> str:
    """A data source of each database. The tests of a session share it."""
    value: str = request.getfixturevalue(f"{request.param}_dsn")
    return value


@pytest.fixture(scope="session")
def flowers(server: RealServer) -> str:
    """The name of a trained model."""
    with sqlflow.connect(server.address) as connected:
        connected.run(
            "SELECT * FROM iris TO TRAIN xgboost.gbtree WITH train.num_boost_round = 5 LABEL class INTO flowers;"
        ).result()
    return "flowers"
