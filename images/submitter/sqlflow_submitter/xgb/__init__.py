"""Code specific to XGBoost. Only `booster` and `errors` import the library, which takes a third of a second."""
