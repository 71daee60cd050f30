"""Try some learning rates with Ray Tune and log each trial.

pip install 'ray[tune]'
python examples/ray_tune.py runs/ray
"""

import sys
from pathlib import Path

from ray import tune

from sm_tblog.adapters.ray import TensorBoardLoggerCallback

logdir = sys.argv[1] if sys.argv[1:] else "runs/ray"


def train(config):
    x = 5.0
    for _ in range(10):
        x -= config["lr"] * 2 * x  # gradient descent on x squared
        tune.report({"loss": x * x})


tuner = tune.Tuner(
    train,
    param_space={"lr": tune.grid_search([0.01, 0.1])},
    run_config=tune.RunConfig(
        name="ray",
        storage_path=str(Path(logdir).absolute()),
        callbacks=[TensorBoardLoggerCallback()],
        verbose=0,
    ),
)
print(tuner.fit().get_best_result("loss", "min").config)
