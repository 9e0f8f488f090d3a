"""Loads Fisher's irises, which ship with scikit-learn, into the table `iris` of an SQLite file: load_iris.py FILE."""

import sqlite3
import sys

from sklearn.datasets import load_iris

COLUMNS = ("sepal_length", "sepal_width", "petal_length", "petal_width")

data = load_iris()
connection = sqlite3.connect(sys.argv[1])
with connection:
    connection.execute("DROP TABLE IF EXISTS iris")
    connection.execute(f"CREATE TABLE iris ({', '.join(f'{name} REAL' for name in COLUMNS)}, class INTEGER)")
    rows = [(*map(float, row), int(label)) for row, label in zip(data.data, data.target, strict=True)]
    connection.executemany("INSERT INTO iris VALUES (?, ?, ?, ?, ?)", rows)
connection.close()
