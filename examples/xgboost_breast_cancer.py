"""Train XGBoost on scikit-learn's breast cancer data and log metrics, trees and importances.

pip install xgboost scikit-learn matplotlib
python examples/xgboost_breast_cancer.py runs/xgboost
"""

import sys

import xgboost
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from sm_tblog.adapters.xgboost import TensorBoardCallback

logdir = sys.argv[1] if sys.argv[1:] else "runs/xgboost"

data = load_breast_cancer()
names = [str(name) for name in data.feature_names]
x, x_test, y, y_test = train_test_split(data.data, data.target, random_state=0)
train = xgboost.DMatrix(x, y, feature_names=names)
test = xgboost.DMatrix(x_test, y_test, feature_names=names)

params = {"objective": "binary:logistic", "eval_metric": ["logloss", "auc"], "max_depth": 3}
for eta in (0.1, 0.3):
    model = xgboost.train(
        {**params, "eta": eta},
        train,
        num_boost_round=50,
        evals=[(train, "train"), (test, "test")],
        early_stopping_rounds=10,
        callbacks=[TensorBoardCallback(f"{logdir}/eta-{eta}", trees="text", importance_every=10)],
        verbose_eval=False,
    )
    print(f"eta {eta}: best AUC {model.best_score:.4f} in round {model.best_iteration}")
