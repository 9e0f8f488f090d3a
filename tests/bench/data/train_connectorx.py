"""train_connectorx.py URL MATRIX: the columns as Arrow, then XGBoost. MATRIX is the class that holds them."""

import sys

import connectorx
import xgboost

table = connectorx.read_sql(sys.argv[1], "SELECT * FROM wide", return_type="arrow")
make = getattr(xgboost, sys.argv[2])
matrix = make(table.drop_columns(["label"]), label=table["label"])
parameters = {"objective": "binary:logistic", "tree_method": "hist", "nthread": 2}
xgboost.train(parameters, matrix, num_boost_round=10)
