"""fetchall.py URL SQL: all rows in one list, with the database's usual driver. Prints rows per second, without the
start of Python and the imports."""

import sqlite3
import sys
import time
from urllib.parse import unquote, urlsplit

import psycopg
import pymysql

url, sql = sys.argv[1:]


def connect():
    at = urlsplit(url)
    if at.scheme == "sqlite":
        return sqlite3.connect(url.removeprefix("sqlite://"))
    if at.scheme == "postgresql":
        return psycopg.connect(url)
    password = unquote(at.password)
    return pymysql.connect(host=at.hostname, port=at.port, user=at.username, password=password, database=at.path[1:])


begin = time.perf_counter()
cursor = connect().cursor()
cursor.execute(sql)
rows = cursor.fetchall()
print(len(rows) / (time.perf_counter() - begin))
