"""Train a small network to read digits, in a SageMaker training job or on a laptop.

The script does not set a log directory. In a job, ``Writer()`` finds the directory that SageMaker
uploads; on a laptop, it logs below ``runs``. After a spot interruption, SageMaker restarts the job
with its checkpoints and nothing else. The script continues from the last checkpoint, and its curves
continue as if nothing had happened.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from sklearn.datasets import load_digits

from sm_tblog import SystemMetrics, Writer
from sm_tblog.sagemaker import training_job


def main() -> None:
    """Train the network."""
    options = parse_options()
    torch.manual_seed(0)
    images, labels, validation_images, validation_labels = load_data()
    model = torch.nn.Sequential(
        torch.nn.Linear(64, options.width), torch.nn.ReLU(), torch.nn.Linear(options.width, 10)
    )
    optimizer = torch.optim.SGD(model.parameters(), options.learning_rate, momentum=0.9)
    checkpoint = Checkpoint(model, optimizer)
    first = checkpoint.restore()

    # Replaces what the job logged at this step and later before it was interrupted.
    with Writer(resume=first) as writer, SystemMetrics(writer, step=lambda: writer.step):
        writer.hparams(vars(options))
        for step in range(first, options.steps):
            writer.step = step
            batch = torch.randint(
                len(images), (options.batch_size,), generator=torch.Generator().manual_seed(step)
            )
            loss = torch.nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            writer.add_scalar("loss/train", loss.detach())
            if (step + 1) % options.save_every == 0:
                right = (model(validation_images).argmax(1) == validation_labels).float().mean()
                writer.add_scalar("accuracy/validation", right)
                checkpoint.save(step + 1)
    save_model(model)


class Checkpoint:
    """The file from which a restarted job continues.

    Args:
        model: the model to save and restore.
        optimizer: the optimizer that trains it.
    """

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        job = training_job()
        folder = (job and job.checkpoint_path) or Path("checkpoints")
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "last.pt"
        self._parts = {"model": model, "optimizer": optimizer}

    def restore(self) -> int:
        """Load the checkpoint and return the step to continue with, 0 if there is none."""
        if not self._path.exists():
            return 0
        saved = torch.load(self._path, weights_only=True)
        for name, part in self._parts.items():
            part.load_state_dict(saved[name])
        return int(saved["step"])

    def save(self, step: int) -> None:
        """Save everything needed to continue with a step."""
        states = {name: part.state_dict() for name, part in self._parts.items()}
        unfinished = self._path.with_suffix(".part")
        torch.save({**states, "step": step}, unfinished)
        unfinished.replace(self._path)  # an interruption never leaves half a file


def parse_options() -> argparse.Namespace:
    """Parse the hyperparameters, which SageMaker passes as arguments."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--save-every", type=int, default=50, help="steps")
    return parser.parse_args()


def load_data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return training images and labels, then validation images and labels."""
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target)
    return images[:1347], labels[:1347], images[1347:], labels[1347:]


def save_model(model: torch.nn.Module) -> None:
    """Save the model where SageMaker collects it at the end of the job."""
    folder = Path(os.environ.get("SM_MODEL_DIR", "model"))
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / "model.pt")


if __name__ == "__main__":
    main()
