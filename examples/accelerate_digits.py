"""Train a network on scikit-learn's digits in an Accelerate loop and log it.

pip install accelerate scikit-learn Pillow
python examples/accelerate_digits.py runs/accelerate
accelerate launch examples/accelerate_digits.py runs/accelerate
"""

import sys

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits

from sm_tblog.adapters.accelerate import TensorBoardTracker

logdir = sys.argv[1] if sys.argv[1:] else "runs/accelerate"
config = {"lr": 1e-2, "batch_size": 64, "epochs": 3}

digits = load_digits()
images = torch.tensor(digits.data / 16, dtype=torch.float32)
dataset = torch.utils.data.TensorDataset(images, torch.tensor(digits.target))
loader = torch.utils.data.DataLoader(dataset, config["batch_size"], shuffle=True)
model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
optimizer = torch.optim.Adam(model.parameters(), config["lr"])

accelerator = Accelerator(log_with=TensorBoardTracker(logdir))
accelerator.init_trackers("digits", config)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

step = 0
for epoch in range(config["epochs"]):
    for batch, labels in loader:
        loss = torch.nn.functional.cross_entropy(model(batch), labels)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        accelerator.log({"loss": loss.detach(), "epoch": epoch}, step)
        step += 1

if accelerator.is_main_process:
    tracker = accelerator.get_tracker("tensorboard")
    tracker.log_images({"digits": digits.images[:16] / 16}, step, dataformats="NHW")
accelerator.end_training()
