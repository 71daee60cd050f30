"""Rules that detect training problems, for ``writer.watch`` and ``writer.watch_rules``.

Layer rules: ``VanishingGradient``, ``ExplodingGradient``, ``ExplodingTensor``, ``NaNSource``,
``WeightUpdateRatio``, ``AllZero``, ``UnchangedTensor``, ``DeadRelu``, ``SaturatedActivation`` and
``PoorWeightInitialization``. Loss rules: ``LossNotDecreasing``, ``Overfit``, ``Overtraining`` and
``StalledTraining``.
"""

from __future__ import annotations

from sm_tblog.rules.base import Alert, Finding, LayerRule, Rule
from sm_tblog.rules.layers import (
    AllZero,
    DeadRelu,
    ExplodingGradient,
    ExplodingTensor,
    NaNSource,
    PoorWeightInitialization,
    SaturatedActivation,
    UnchangedTensor,
    VanishingGradient,
    WeightUpdateRatio,
    layer_rules,
)
from sm_tblog.rules.losses import (
    LossNotDecreasing,
    LossRule,
    Overfit,
    Overtraining,
    StalledTraining,
    loss_rules,
)

__all__ = [
    "Alert",
    "AllZero",
    "DeadRelu",
    "ExplodingGradient",
    "ExplodingTensor",
    "Finding",
    "LayerRule",
    "LossNotDecreasing",
    "LossRule",
    "NaNSource",
    "Overfit",
    "Overtraining",
    "PoorWeightInitialization",
    "Rule",
    "SaturatedActivation",
    "StalledTraining",
    "UnchangedTensor",
    "VanishingGradient",
    "WeightUpdateRatio",
    "layer_rules",
    "loss_rules",
]
