"""Rules: what is wrong with a training run, judged by what its layers and its losses do.

Definitions and thresholds are those that Amazon publishes for SageMaker Debugger's built-in rules
of the same names, where there is one; what differs is said at the rule. A rule finds faults at one
logged step; whether it *fires* depends on its patience.

======================  =======================================================================
of layers, here         what ``writer.watch`` and ``writer.watch_tree`` look at
of losses, ``losses``   scalars that are logged anyway, by their tags
======================  =======================================================================

A rule of one's own is a subclass of ``LayerRule`` with a ``check``::

    @dataclass(kw_only=True)
    class Sparse(LayerRule):
        kinds = ("activations",)
        advice = "Lower the weight of the penalty."

        def check(self, observation):
            for tensor in observation.of("activations"):
                if tensor.statistics.zeros > 0.99:
                    yield Finding(tensor.name, tensor.statistics.zeros, 0.99, "share of zeros")
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar

from sm_tblog.rules.base import Finding, LayerRule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sm_tblog.rules.base import Action
    from sm_tblog.rules.observation import Observation, ObservedTensor

__all__ = [
    "AllZero",
    "DeadRelu",
    "ExplodingGradient",
    "ExplodingTensor",
    "NaNSource",
    "PoorWeightInitialization",
    "SaturatedActivation",
    "UnchangedTensor",
    "VanishingGradient",
    "WeightUpdateRatio",
    "layer_rules",
]

_LEAST_SAMPLES = 32
"""Values of a unit from which it can be told whether it is ever active."""


@dataclass(kw_only=True)
class VanishingGradient(LayerRule):
    """The mean magnitude of a weight's gradient is below ``threshold``.

    Biases, scales of normalizations and embeddings are left out: theirs may rightly be.
    """

    kinds = ("gradients",)
    advice = (
        "The layer hardly learns. Use ReLU-like activations, residual connections or normalization "
        "between it and the loss, or an initialization made for the activation; look at the layers "
        "behind it first. Where the loss is as low as it can be, all is well."
    )
    threshold: float = 1e-7
    patience: int = 2

    def check(self, observation: Observation) -> Iterator[Finding]:
        """Return weights with small gradients."""
        for tensor, found in _weights(observation, "gradients"):
            if found.abs_mean < self.threshold:
                what = "mean |gradient|"
                yield _at(tensor, found.abs_mean, self.threshold, what)


@dataclass(kw_only=True)
class ExplodingGradient(LayerRule):
    """The norm of a gradient is above ``threshold``, or above ``growth`` times what it was.

    What it was is the median of the last twenty logged, once there are five; a norm below 10 is
    never too large. SageMaker Debugger has no such rule.
    """

    kinds = ("gradients",)
    advice = (
        "Clip the gradient (torch.nn.utils.clip_grad_norm_), lower the learning rate or warm it "
        "up; in a recurrent network, shorten the sequences or use a gated cell. A loss that is a "
        "sum and not a mean has large gradients by itself: raise the threshold."
    )
    threshold: float = 1e4
    growth: float = 100.0

    def __post_init__(self) -> None:
        """Begin with nothing known."""
        super().__post_init__()
        self._norms: dict[str, deque[float]] = {}

    def check(self, observation: Observation) -> Iterator[Finding]:
        """Return large gradients."""
        for tensor in observation.of("gradients"):
            found = _of(tensor)
            before = self._norms.setdefault(tensor.name, deque(maxlen=20))
            bound = self.threshold
            if len(before) >= 5:
                bound = min(bound, max(self.growth * median(before), 10.0))
            if found.norm > bound:
                yield _at(tensor, found.norm, bound, "norm of the gradient")
            elif math.isfinite(found.norm):
                before.append(found.norm)


@dataclass(kw_only=True)
class ExplodingTensor(LayerRule):
    """A gradient, parameter or output has a NaN or an infinite value."""

    kinds = ("gradients", "parameters", "activations")
    advice = (
        "NaNSource names the layer in which it begins. Look for a division by zero, the logarithm "
        "or root of what is not positive, and for numbers that are too large for float16."
    )

    def check(self, observation: Observation) -> Iterator[Finding]:
        """Return what is not finite."""
        for tensor in observation.of(*self.kinds):
            found = _of(tensor)
            if found.nan or found.inf:
                noun = _NOUNS[tensor.kind]
                what = f"NaN and infinite of the {found.size:,} in its {noun}"
                yield _at(tensor, found.nan + found.inf, 0, what)


_NOUNS = {"gradients": "gradient", "parameters": "values", "activations": "output"}
"""What an array is to its place, by kind."""


@dataclass(kw_only=True)
class NaNSource(LayerRule):
    """Where NaN and infinities begin: the first that has some, in the order of computation.

    These are the parameters before the step, the outputs from the input on, and the gradients from
    the loss back. It says where they begin in the first logged step that has some; with ``every=1``
    that is the step in which they begin.
    """

    kinds = ("gradients", "parameters", "activations")
    advice = (
        "Look at this layer first: its inputs were still finite. Where it is a gradient and all "
        "outputs are finite, the loss function is next; where it is a parameter, an earlier update "
        "was not finite."
    )

    def check(self, observation: Observation) -> Iterator[Finding]:
        """Return the first that is not finite."""
        order = [
            *observation.of("parameters"),
            *observation.of("activations"),
            *reversed(observation.of("gradients")),
        ]
        for tensor in order:
            found = _of(tensor)
            if found.nan or found.inf:
                kind = "infinity" if found.inf >= found.nan else "NaN"
                noun = _NOUNS[tensor.kind]
                what = f"{kind} begins here; how many of the {found.size:,} in its {noun}"
                yield _at(tensor, found.nan + found.inf, 0, what)
                return


@dataclass(kw_only=True)
class WeightUpdateRatio(LayerRule):
    """The norm of an update, by that of the weight, is above ``large`` or below ``small``.

    Biases, scales and embeddings are left out: those that begin at zero have no ratio.
    """

    kinds = ("updates",)
    advice = (
        "Healthy updates are about a thousandth of the weight. Too large: lower the learning rate. "
        "Too small: raise it, or see whether the layer gets a gradient at all and whether a "
        "schedule has brought the rate to zero."
    )
    large: float = 10.0
    small: float = 1e-8
    patience: int = 2

    def check(self, observation: Observation) -> Iterator[Finding]:
        """Return updates out of proportion."""
        for tensor in observation.of("updates"):
            if tensor.change and tensor.is_weight:
                ratio = tensor.change.ratio
                if ratio > self.large or ratio < self.small:
                    bound = self.large if ratio > self.large else self.small
                    yield _at(tensor, ratio, bound, "update by weight")


@dataclass(kw_only=True)
class AllZero(LayerRule):
    """All of a weight, of its gradient, or of an output is zero."""

    kinds = ("parameters", "gradients", "activations")
    advice = (
        "Nothing passes here. A weight: initialize it with random numbers, for equal units learn "
        "the same. A gradient: the layer is cut off from the loss, by a detach, a zero behind it "
        "or dead units. An output: look at what comes into the layer."
    )
    patience: int = 2

    def check(self, observation: Observation) -> Iterator[Finding]:
        """Return what is all zero."""
        for tensor in observation.of(*self.kinds):
            found = _of(tensor)
            if (
                found.size
                and found.zeros == 1
                and (tensor.kind == "activations" or tensor.is_weight)
            ):
                yield _at(tensor, 1.0, 1.0, f"share of zeros in its {_NOUNS[tensor.kind]}")


@dataclass(kw_only=True)
class UnchangedTensor(LayerRule):
    """A weight is, to ``numpy.allclose``, what it was before the update; three logged steps long.

    That is, no element changes by more than 1e-8 and 1e-5 of itself. SageMaker Debugger compares
    the values at logged steps; here each is compared across one update.
    """

    kinds = ("updates",)
    advice = (
        "The layer does not learn. See whether it is in the optimizer and gets a gradient, and "
        "whether the learning rate is what you think. What is frozen on purpose: say "
        "requires_grad_(False), and it is not watched."
    )
    patience: int = 2

    def check(self, observation: Observation) -> Iterator[Finding]:
        """Return what does not change."""
        for tensor in observation.of("updates"):
            if tensor.change and tensor.is_weight and not tensor.change.changed:
                yield _at(tensor, 0.0, 0.0, "share of its elements that change")


@dataclass(kw_only=True)
class _InactiveUnits(LayerRule):
    """More than ``share`` of a layer's units are active for less than ``activity`` of a batch."""

    kinds = ("activations",)
    roles: ClassVar[tuple[str, ...]] = ()
    what: ClassVar[str] = ""
    activity: float = 0.01
    share: float = 0.5
    patience: int = 2

    def check(self, observation: Observation) -> Iterator[Finding]:
        """Return layers of inactive units."""
        for tensor in observation.of("activations"):
            known = tensor.inactive is not None and tensor.samples >= _LEAST_SAMPLES
            known = known and not _of(tensor).nan  # which is above nothing
            if known and tensor.role in self.roles and (tensor.inactive or 0) > self.share:
                yield _at(tensor, tensor.inactive or 0, self.share, self.what)


@dataclass(kw_only=True)
class DeadRelu(_InactiveUnits):
    """More than ``share`` of a ReLU's units are above zero for less than ``activity`` of a batch.

    It takes 32 values of a unit in a batch to tell.
    """

    roles = ("relu",)
    what = "share of units that are hardly ever above zero"
    advice = (
        "Lower the learning rate, begin with smaller or no negative biases, scale the inputs, or "
        "use LeakyReLU, GELU or normalization before the activation."
    )


@dataclass(kw_only=True)
class SaturatedActivation(_InactiveUnits):
    """More than ``share`` of the units of a tanh or sigmoid are almost always saturated.

    That is, less than ``activity`` of the batch comes into a unit between -9.4999 and 9.4999, for
    a sigmoid between -23 and 16.99999. It takes 32 values of a unit in a batch to tell.
    """

    roles = ("tanh", "sigmoid")
    what = "share of units that are saturated"
    advice = (
        "The gradient stops here. Scale or normalize what comes into the layer, initialize the "
        "weights before it with less variance, lower the learning rate."
    )


@dataclass(kw_only=True)
class PoorWeightInitialization(LayerRule):
    """At the beginning, layers differ much in the variance of their outputs, and hardly learn.

    Not among the rules by default: PyTorch's own initialization is judged poor where four layers
    follow each other without normalization. Both must hold: the largest variance among the outputs
    of layers with weights is more than ``ratio`` times the smallest, and a weight's gradient has
    less than ``spread`` between its 5th and 95th percentile; more than ``patience`` times in a row
    in the first ``steps`` logged steps. Either alone is found in healthy networks.
    """

    kinds = ("activations", "gradients")
    advice = (
        "Initialize for the activation that follows: torch.nn.init.kaiming_normal_ for ReLU, "
        "xavier_normal_ for tanh; no weight with equal or zero elements. Log the first steps with "
        "every=1 to see them."
    )
    ratio: float = 10.0
    spread: float = 1e-3
    steps: int = 10
    patience: int = 5

    def __post_init__(self) -> None:
        """Begin with the first step."""
        super().__post_init__()
        self._seen = 0

    @property
    def wants_spreads(self) -> bool:
        """Whether it still needs percentiles."""
        return self._seen < self.steps

    def check(self, observation: Observation) -> Iterator[Finding]:
        """Return the layer with the smallest variance."""
        self._seen += 1
        outputs = [t for t in observation.of("activations") if t.role == "weighted"]
        spreads = [
            tensor.spread
            for tensor in observation.of("gradients")
            if tensor.is_weight and tensor.spread is not None
        ]
        if self._seen > self.steps or len(outputs) < 2 or not spreads:
            return
        variances = [_of(tensor).std ** 2 for tensor in outputs]
        least, most = min(variances), max(variances)
        ratio = most / least if least else math.inf if most else 1.0
        if ratio > self.ratio and min(spreads) < self.spread:
            where = outputs[variances.index(least)].name
            what = (
                "largest variance of outputs by that of this layer's, while the percentiles of a "
                f"gradient are {min(spreads):.2g} apart"
            )
            yield Finding(where, ratio, self.ratio, what)


def layer_rules(action: Action = "warn") -> list[LayerRule]:
    """Return the rules that ``writer.watch`` has by default, with one action for all."""
    kinds: list[type[LayerRule]] = [
        VanishingGradient,
        ExplodingGradient,
        ExplodingTensor,
        NaNSource,
        WeightUpdateRatio,
        AllZero,
        UnchangedTensor,
        DeadRelu,
        SaturatedActivation,
    ]
    return [kind(action=action) for kind in kinds]


def _at(tensor: ObservedTensor, value: float, threshold: float, what: str) -> Finding:
    return Finding(tensor.name, value, threshold, what, tensor.kind)


def _of(tensor: ObservedTensor) -> Any:
    """Return the statistics of what has some."""
    return tensor.statistics


def _weights(observation: Observation, kind: str) -> Iterator[tuple[ObservedTensor, Any]]:
    for tensor in observation.of(kind):
        if tensor.is_weight:
            yield tensor, _of(tensor)
