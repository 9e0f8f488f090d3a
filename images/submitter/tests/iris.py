"""Fisher's iris in a table."""

from __future__ import annotations

from sklearn.datasets import load_iris

COLUMNS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
FEATURES = ", ".join(COLUMNS)


def iris_statements() -> list[str]:
    """Returns SQL for all databases that creates the table `iris`, with a number and a name for each class."""
    data = load_iris()
    rows = [
        f"({', '.join(map(str, values))}, {target}, '{data.target_names[target]}')"
        for values, target in zip(data.data.tolist(), data.target.tolist(), strict=True)
    ]
    columns = ", ".join(f"{name} double precision" for name in COLUMNS)
    return [
        "DROP TABLE IF EXISTS iris",
        f"CREATE TABLE iris ({columns}, class int, name varchar(20))",
        f"INSERT INTO iris VALUES {', '.join(rows)}",
    ]
