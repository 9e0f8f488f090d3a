"""train_pandas.py URL MODEL: `read_sql`, then XGBoost. Leaves the model in a file."""

import sys

import pandas
import sqlalchemy
import xgboost

frame = pandas.read_sql("SELECT * FROM wide", sqlalchemy.create_engine(sys.argv[1]))
matrix = xgboost.DMatrix(frame.drop(columns="label"), label=frame["label"])
parameters = {"objective": "binary:logistic", "tree_method": "hist", "nthread": 2}
xgboost.train(parameters, matrix, num_boost_round=10).save_model(sys.argv[2])
