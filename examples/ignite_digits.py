"""Train a network on scikit-learn's digits with PyTorch-Ignite and log it.

pip install pytorch-ignite scikit-learn
python examples/ignite_digits.py runs/ignite
"""

import sys

import torch
from ignite.engine import Engine, Events
from ignite.handlers.tensorboard_logger import WeightsHistHandler
from sklearn.datasets import load_digits

from sm_tblog.adapters.ignite import TensorboardLogger

logdir = sys.argv[1] if sys.argv[1:] else "runs/ignite"

digits = load_digits()
images = torch.tensor(digits.data / 16, dtype=torch.float32)
dataset = torch.utils.data.TensorDataset(images, torch.tensor(digits.target))
loader = torch.utils.data.DataLoader(dataset, 64, shuffle=True)
model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
optimizer = torch.optim.Adam(model.parameters(), 1e-2)


def step(engine, batch):
    x, y = batch
    loss = torch.nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


trainer = Engine(step)
with TensorboardLogger(logdir) as logger:
    logger.attach_output_handler(
        trainer,
        Events.ITERATION_COMPLETED,
        tag="training",
        output_transform=lambda loss: {"loss": loss},
    )
    logger.attach(trainer, WeightsHistHandler(model), Events.EPOCH_COMPLETED)
    trainer.run(loader, max_epochs=3)
