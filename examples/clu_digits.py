"""Fit scikit-learn's digits with JAX and log it through clu's interface, without TensorFlow.

pip install jax scikit-learn Pillow
python examples/clu_digits.py runs/clu
"""

import sys

import jax
import jax.numpy as jnp
from sklearn.datasets import load_digits

from sm_tblog.adapters.clu import MetricWriter

logdir = sys.argv[1] if sys.argv[1:] else "runs/clu"

digits = load_digits()
x, y = jnp.asarray(digits.data / 16), jnp.asarray(digits.target)
hparams = {"lr": 0.5, "steps": 50}


def loss_of(weights):
    logits = x @ weights["w"] + weights["b"]
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(y)), y])


@jax.jit
def update(weights):
    loss, gradients = jax.value_and_grad(loss_of)(weights)
    return loss, jax.tree.map(lambda w, g: w - hparams["lr"] * g, weights, gradients)


weights = {"w": jnp.zeros((64, 10)), "b": jnp.zeros(10)}
with MetricWriter(logdir, enabled=jax.process_index() == 0) as writer:
    writer.write_hparams(hparams)
    writer.write_images(0, {"digits": digits.images[:8, :, :, None] / 16})
    for step in range(hparams["steps"]):
        loss, weights = update(weights)
        writer.write_scalars(step, {"loss": loss})
    writer.write_histograms(step, {"weights": weights["w"]})
