"""Feature columns: from a COLUMN clause, or from the data when there is none, to the matrix that a model reads.

`spec` says what a feature is, `clause` reads a COLUMN clause into specs, `learn` and `collect` make specs of all of the
data, `encode` turns values into numbers and `matrix` puts the columns side by side.
"""
