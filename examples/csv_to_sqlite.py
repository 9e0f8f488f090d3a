"""Loads a CSV file with a header line into a new table of an SQLite file: csv_to_sqlite.py FILE.csv DATABASE.db TABLE

A column is INTEGER or REAL if all its values are such numbers, otherwise TEXT. An empty value is NULL. Works with any
Python 3.
"""

import csv
import re
import sqlite3
import sys


INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
REAL = re.compile(r"-?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?")


def column_type(values):
    given = [value for value in values if value != ""]
    if given and all(INTEGER.fullmatch(value) for value in given):
        return "INTEGER"
    # A number with a leading zero, such as 007, is a code.
    is_number = given and all(REAL.fullmatch(value) for value in given)
    return "REAL" if is_number and not any(re.match("-?0[0-9]", value) for value in given) else "TEXT"


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    file, database, table = sys.argv[1:]
    try:
        with open(file, newline="", encoding="utf-8-sig") as opened:
            rows = [row for row in csv.reader(opened) if row]
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"cannot read {file}: {error}")
    if len(rows) < 2:
        sys.exit(f"cannot load {file}: it needs a header line and a row")
    head, *rows = rows
    if len(head) == 1 and ";" in head[0]:
        sys.exit(f"cannot load {file}: its columns are separated by ';'; use ','")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(head):
            sys.exit(f"cannot load {file}: row {number} has {len(row)} values, and the header has {len(head)} columns")
    columns = [(name, column_type([row[place] for row in rows])) for place, name in enumerate(head)]
    definition = ", ".join(f"{quoted(name)} {kind}" for name, kind in columns)
    places = ", ".join("?" for _ in head)
    values = ([None if value == "" else value for value in row] for row in rows)
    try:
        connection = sqlite3.connect(database)
        with connection:
            connection.execute(f"CREATE TABLE {quoted(table)} ({definition})")
            connection.executemany(f"INSERT INTO {quoted(table)} VALUES ({places})", values)
        connection.close()
    except sqlite3.Error as error:
        sys.exit(f"cannot load {file} into {database}: {error}")
    print(f"{len(rows)} rows are in table {table} of {database}")


main()
