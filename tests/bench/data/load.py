"""load.py URL ROWS FOLDER: makes the tables `wide`, `narrow` and `texts`, by each database's fastest way in."""

import sqlite3
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.csv
import pymysql

url, rows, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
random = np.random.default_rng(7)


def wide() -> pa.Table:
    features = random.normal(size=(20, rows))
    label = (random.normal(size=20) @ features + random.normal(size=rows) > 0).astype(np.int64)
    return pa.table({f"f{n}": values for n, values in enumerate(features)} | {"label": label})


def narrow() -> pa.Table:
    number = np.arange(rows)
    names = pa.array([f"item {n}" for n in range(rows)])
    return pa.table({"id": number, "amount": number * 7919 % 100003, "price": number / 64, "name": names})


def texts() -> pa.Table:
    words = ["red", "a longer text, with a comma", "grün", "数据", 'one "quoted"', "x" * 40]
    columns = {f"t{n}": random.integers(len(words), size=rows) for n in range(4)}
    return pa.table({name: [f"{words[at]} {at}" for at in picks.tolist()] for name, picks in columns.items()})


TYPES = {pa.float64(): "DOUBLE PRECISION", pa.int64(): "INTEGER", pa.string(): "TEXT"}


def create(name: str, table: pa.Table) -> str:
    columns = ", ".join(f"{field.name} {TYPES[field.type]}" for field in table.schema)
    return f"CREATE TABLE {name} ({columns})"


def write_csv(table: pa.Table) -> Path:
    file = folder / "table.csv"
    pyarrow.csv.write_csv(table, file, pyarrow.csv.WriteOptions(include_header=False))
    return file


def load_sqlite(tables: dict[str, pa.Table]) -> None:
    connection = sqlite3.connect(url.removeprefix("sqlite://"))
    for name, table in tables.items():
        with connection:
            connection.execute(create(name, table))
            places = ", ".join("?" * table.num_columns)
            values = zip(*(column.to_pylist() for column in table.columns), strict=True)
            connection.executemany(f"INSERT INTO {name} VALUES ({places})", values)
    connection.close()


def load_mariadb(tables: dict[str, pa.Table]) -> None:
    at = urlsplit(url)
    connection = pymysql.connect(
        host=at.hostname,
        port=at.port,
        user=at.username,
        password=unquote(at.password),
        database=at.path[1:],
        local_infile=True,
    )
    with connection, connection.cursor() as cursor:
        for name, table in tables.items():
            cursor.execute(create(name, table))
            cursor.execute(
                f"LOAD DATA LOCAL INFILE '{write_csv(table)}' INTO TABLE {name} CHARACTER SET utf8mb4 "
                "FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"' ESCAPED BY ''"
            )
            connection.commit()


def load_postgresql(tables: dict[str, pa.Table]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for name, table in tables.items():
            connection.execute(create(name, table))
            copying = connection.cursor().copy(f"COPY {name} FROM STDIN (FORMAT csv)")
            with open(write_csv(table), "rb") as file, copying as copy:
                while piece := file.read(1 << 20):
                    copy.write(piece)
            # Or the server itself would do it in the middle of a measurement.
            connection.execute(f"VACUUM ANALYZE {name}")


load = {"sqlite": load_sqlite, "mysql": load_mariadb, "postgresql": load_postgresql}[urlsplit(url).scheme]
load({"wide": wide(), "narrow": narrow(), "texts": texts()})
