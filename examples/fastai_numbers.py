"""Train a fastai Learner to add numbers and log it.

pip install fastai
python examples/fastai_numbers.py runs/fastai
"""

import sys

import torch
from fastai.basics import DataLoader, DataLoaders, Learner, mae

from sm_tblog.adapters.fastai import TensorBoardCallback

logdir = sys.argv[1] if sys.argv[1:] else "runs/fastai"

x = torch.rand(256, 2)
dataset = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True))
loaders = DataLoaders(*(DataLoader(dataset, batch_size=32, num_workers=0) for _ in range(2)))
learner = Learner(loaders, torch.nn.Linear(2, 1), loss_func=torch.nn.MSELoss(), metrics=mae)
learner.fit(3, 0.1, cbs=TensorBoardCallback(logdir, log_preds=False))
