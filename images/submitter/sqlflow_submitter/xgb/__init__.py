"""What is particular to XGBoost. Only `booster` uses the library itself, which takes a third of a second to import."""
