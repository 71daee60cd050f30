"""Train CatBoost on scikit-learn's breast cancer data and log it.

pip install catboost scikit-learn matplotlib
python examples/catboost_breast_cancer.py runs/catboost
"""

import sys

from catboost import CatBoostClassifier
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from sm_tblog.adapters.catboost import TensorBoardCallback

logdir = sys.argv[1] if sys.argv[1:] else "runs/catboost"

x, y = load_breast_cancer(return_X_y=True, as_frame=True)
x, x_test, y, y_test = train_test_split(x, y, random_state=0)

model = CatBoostClassifier(
    iterations=50,
    depth=4,
    custom_metric=["AUC"],
    early_stopping_rounds=10,
    allow_writing_files=False,  # disable CatBoost's own event files
    verbose=False,
)
with TensorBoardCallback(logdir) as callback:
    model.fit(x, y, eval_set=(x_test, y_test), callbacks=[callback])
    callback.log_model(model)  # parameters and importances, which callbacks do not receive
print(f"best in round {model.best_iteration_}")
