-- Fisher's irises: look at them, learn to tell them apart, see how well that goes, and use it.
SELECT * FROM iris LIMIT 5;

-- Four rows of five are for training. (rowid is SQLite's; in other databases take a key of your own.)
SELECT * FROM iris WHERE rowid % 5 > 0
TO TRAIN xgboost.gbtree
WITH objective = "multi:softmax", num_class = 3, train.num_boost_round = 20
LABEL class
INTO iris_model;

-- The fifth is held out: the model is measured on rows that it has not seen.
SELECT * FROM iris WHERE rowid % 5 = 0
TO EVALUATE iris_model
WITH validation.metrics = "accuracy_score"
LABEL class
INTO iris_evaluation;

SELECT * FROM iris
TO PREDICT iris_predicted.class
USING iris_model;

SELECT class, count(*) AS flowers FROM iris_predicted GROUP BY class;
