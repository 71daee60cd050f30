"""Train LightGBM on scikit-learn's breast cancer data with early stopping and log it.

pip install lightgbm scikit-learn matplotlib
python examples/lightgbm_breast_cancer.py runs/lightgbm
"""

import sys

import lightgbm
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from sm_tblog.adapters.lightgbm import TensorBoardCallback

logdir = sys.argv[1] if sys.argv[1:] else "runs/lightgbm"

data = load_breast_cancer()
names = [str(name).replace(" ", "_") for name in data.feature_names]
x, x_test, y, y_test = train_test_split(data.data, data.target, random_state=0)
train = lightgbm.Dataset(x, y, feature_name=names)
test = lightgbm.Dataset(x_test, y_test, reference=train)

for num_leaves in (7, 31):
    params = {"objective": "binary", "metric": ["binary_logloss", "auc"], "verbose": -1}
    model = lightgbm.train(
        {**params, "num_leaves": num_leaves},
        train,
        num_boost_round=50,
        valid_sets=[train, test],
        valid_names=["train", "test"],
        callbacks=[
            TensorBoardCallback(f"{logdir}/leaves-{num_leaves}"),
            lightgbm.early_stopping(10, verbose=False),
        ],
    )
    print(f"{num_leaves} leaves: best in round {model.best_iteration}")
