"""Features: from a COLUMN clause, or from the data if there is none, to the matrix that a model reads.

`spec` defines a feature. `clause` parses a COLUMN clause into features. `learn` and `collect` derive features from
the data. `encode` converts values to numbers, and `matrix` joins the columns.
"""
