"""Trains small Keras models, deterministically: ``keras_runs.py FOLDER own|ours``.

Each function below is one training, which logs to ``FOLDER/<its name>``. ``KERAS_BACKEND`` selects
the backend; TensorFlow cannot be imported unless it is the backend.
"""

import json
import os
import pickle
import sys
from pathlib import Path

if os.environ["KERAS_BACKEND"] != "tensorflow":
    sys.modules["tensorflow"] = None

import keras
import numpy as np
import pytest

X = np.linspace(0, 1, 64 * 6, dtype="float32").reshape(64, 6)
Y = (np.arange(64) % 3 == 0).astype("float32")


def dense():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


def fit(model, *callbacks, x=X, y=Y, epochs=3, **more):
    settings = {"batch_size": 8, "shuffle": False, "verbose": 0, **more}
    return model.fit(x, y, epochs=epochs, callbacks=[*callbacks], **settings).history


def epochs(folder, callback):
    history = fit(dense(), callback(folder), validation_split=0.25)
    Path(folder, "history.json").write_text(json.dumps(history), encoding="utf-8")


def batches(folder, callback):
    logged = callback(folder, update_freq="batch", write_steps_per_second=True)
    fit(dense(), logged, validation_split=0.25)


def every_third(folder, callback):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3),
            keras.layers.Conv2D(4, 3),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.SGD(0.01), "mse")
    logged = callback(folder, update_freq=3, histogram_freq=2, write_images=True)
    x = np.linspace(0, 1, 48 * 64, dtype="float32").reshape(48, 8, 8, 1)
    fit(model, logged, x=x, y=Y[:48])


def schedule_and_evaluation(folder, callback):
    model = dense()
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 4, 0.5)
    model.compile(keras.optimizers.SGD(rate), "mse")
    logged = callback(folder, write_graph=False)
    model.evaluate(X, Y, verbose=0, callbacks=[logged])
    fit(model, logged)
    model.evaluate(X, Y, verbose=0, callbacks=[logged])


def scaled_loss(folder, callback):
    model = dense()
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)), "mse")
    fit(model, callback(folder), epochs=1)


def subclassed(folder, callback):
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x):
            return self.dense(x)

    model = Model()
    model.compile("sgd", "mse")
    fit(model, callback(folder, histogram_freq=1), epochs=2)
    kernel = keras.ops.convert_to_numpy(model.dense.kernel)
    np.save(Path(folder, "kernel.npy"), kernel)


def twice(folder, callback):
    model = dense()
    logged = callback(folder, update_freq=2)
    fit(model, logged, epochs=2)
    fit(model, logged, epochs=4, initial_epoch=2)


def stopped_early(folder, callback):
    model = dense()
    model.compile(keras.optimizers.SGD(0.0), "mse")
    stop = keras.callbacks.EarlyStopping(monitor="loss", patience=1)
    fit(model, callback(folder), stop, epochs=9)


def several_steps_at_once(folder, callback):
    model = dense()
    model.compile("sgd", "mse", steps_per_execution=2)
    fit(model, callback(folder, update_freq=1), epochs=1)


def failed(folder, callback):
    class Fail(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 5:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fit(dense(), callback(folder, update_freq=1), Fail())


def unpickled(folder, callback):
    logged = pickle.loads(pickle.dumps(callback(folder)))
    fit(dense(), logged, epochs=1)


def embeddings(folder, callback):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Embedding(5, 3, name="words"),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse")
    Path(folder, "train").mkdir(parents=True)
    Path(folder, "words.tsv").write_text("a\nb\nc\nd\ne\n", encoding="utf-8")
    logged = callback(folder, embeddings_freq=2, embeddings_metadata={"words": "words.tsv"})
    fit(model, logged, x=np.arange(64 * 4).reshape(64, 4) % 5)
    logged = callback(folder, embeddings_freq=1, embeddings_metadata={"others": "words.tsv"})
    with pytest.raises(ValueError, match="others"):
        fit(model, logged, x=np.zeros((8, 4)), y=Y[:8])


def profiled(folder, callback):
    fit(dense(), callback(folder, profile_batch=(2, 3)), epochs=1)


def profiled_to_the_end(folder, callback):
    fit(dense(), callback(folder, profile_batch="7,99"), epochs=1)


def watched(folder, callback):
    fit(dense(), callback(folder, watch_freq=4), epochs=1)


RUNS = [
    *(epochs, batches, every_third, schedule_and_evaluation, scaled_loss, subclassed, twice),
    *(stopped_early, unpickled, embeddings, several_steps_at_once, profiled),
    *(profiled_to_the_end, watched),
    failed,  # last, because Keras' own callback continues logging there
]
if sys.argv[2] == "own":
    RUNS.remove(watched)
if keras.backend.backend() == "torch":
    RUNS.remove(several_steps_at_once)  # Keras runs one step at a time there


def main():
    folder, whose = sys.argv[1:]
    if whose == "own":
        from keras.callbacks import TensorBoard
    else:
        from sm_tblog.adapters.keras import TensorBoard
    for run in RUNS:
        keras.utils.set_random_seed(0)
        keras.backend.clear_session()
        run(f"{folder}/{run.__name__}", TensorBoard)


if __name__ == "__main__":
    main()
