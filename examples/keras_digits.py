"""Train a network with Keras to read handwritten digits, and log everything along the way.

::

    pip install 'sm-tblog[media]' keras torch scikit-learn
    KERAS_BACKEND=torch python examples/keras_digits.py runs/keras
    tensorboard --logdir runs

It runs on every Keras backend. The log directory can be in a bucket, ``s3://bucket/runs/keras``.
"""

import argparse
import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sm_tblog.adapters.keras import TensorBoard


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a network to read digits.")
    parser.add_argument("log_dir", nargs="?", default="runs/keras")
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()

    digits = load_digits()
    images = digits.images[..., None].astype("float32") / 16
    x, x_test, y, y_test = train_test_split(images, digits.target, random_state=0)

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.003),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )

    # The only line needed for logging: losses of every batch, weights after every epoch.
    logged = TensorBoard(arguments.log_dir, update_freq="batch", histogram_freq=1)
    model.fit(
        x,
        y,
        epochs=arguments.epochs,
        validation_data=(x_test, y_test),
        callbacks=[logged],
        verbose=0,
    )

    # Log anything else through the callback's writers.
    guessed = model.predict(x_test, verbose=0).argmax(axis=1)
    logged.val_writer.add_confusion_matrix("digits", y_test, guessed, global_step=arguments.epochs)
    logged.val_writer.close()
    print(f"accuracy {(guessed == y_test).mean():.3f}; tensorboard --logdir {arguments.log_dir}")


if __name__ == "__main__":
    main()
