"""Search for a model of scikit-learn's digits; log each candidate and the training of the best.

pip install scikit-learn
python examples/sklearn_search.py runs/sklearn
"""

import sys

from sklearn.datasets import load_digits
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier

from sm_tblog.adapters.sklearn import TensorBoardCallback, log_curves, log_search

logdir = sys.argv[1] if sys.argv[1:] else "runs/sklearn"

x, y = load_digits(return_X_y=True)
x = x / 16

model = MLPClassifier(max_iter=15, tol=0.0, early_stopping=True, n_iter_no_change=15)
grid = {"hidden_layer_sizes": [(16,), (64,)], "alpha": [1e-4, 1e-2]}
search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(x, y)
log_search(search, f"{logdir}/search")
log_curves(search.best_estimator_, f"{logdir}/best")
print(f"best: {search.best_params_}, accuracy {search.best_score_:.3f}")

# Gradient boosting calls a monitor after each iteration. From scikit-learn 1.9 on,
# LogisticRegression calls the callbacks that you set with set_callbacks.
boosting = GradientBoostingClassifier(n_estimators=10, subsample=0.5, max_depth=2)
boosting.fit(x[:500], y[:500], monitor=TensorBoardCallback(f"{logdir}/boosting"))
