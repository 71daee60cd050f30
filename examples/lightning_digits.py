"""Train a network with Lightning to read handwritten digits, and log everything along the way.

::

    pip install 'sm-tblog[lightning]' scikit-learn
    python examples/lightning_digits.py runs
    tensorboard --logdir runs

The directory can be in a bucket, ``s3://bucket/runs``. Lightning's checkpoints go there too.
"""

import argparse

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sm_tblog.adapters.lightning import TensorBoardLogger


class Digits(pl.LightningModule):
    def __init__(self, width: int = 32, learning_rate: float = 0.003) -> None:
        super().__init__()
        self.save_hyperparameters()  # the logger logs them too
        self.network = nn.Sequential(
            nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10)
        )
        self.example_input_array = torch.zeros(1, 8, 8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images)

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        images, labels = batch
        scores = self(images)
        self.log("val/loss", nn.functional.cross_entropy(scores, labels))
        self.log("val/accuracy", (scores.argmax(1) == labels).float().mean())
        if index == 0:  # the logger's experiment is the writer
            self.logger.experiment.add_images("digits", images[:16, None], self.global_step)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.hparams.learning_rate)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a network to read digits.")
    parser.add_argument("save_dir", nargs="?", default="runs")
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()

    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32) / 16
    parts = train_test_split(images, torch.tensor(digits.target), random_state=0)
    train, test = TensorDataset(parts[0], parts[2]), TensorDataset(parts[1], parts[3])

    pl.seed_everything(0)
    # The only line needed for logging. Runs are compared by their best accuracy.
    logger = TensorBoardLogger(
        arguments.save_dir, name="digits", log_graph=True, best={"val/accuracy": "max"}
    )
    trainer = pl.Trainer(
        logger=logger,
        max_epochs=arguments.epochs,
        log_every_n_steps=1,
        accelerator="cpu",
        enable_progress_bar=False,
    )
    trainer.fit(Digits(), DataLoader(train, 32, shuffle=True), DataLoader(test, 450))
    print(f"accuracy {trainer.callback_metrics['val/accuracy']:.3f}")
    print(f"tensorboard --logdir {trainer.log_dir}")


if __name__ == "__main__":
    main()
