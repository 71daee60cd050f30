"""Layer rules: detect training problems from a model's arrays.

They judge the arrays that ``writer.watch`` and ``writer.watch_tree`` record; for rules that judge
logged scalars, see ``losses``. Where SageMaker Debugger has a built-in rule of the same name, the
definition and thresholds are those that Amazon publishes; each rule documents its differences.
A rule returns findings for one logged step; whether it *fires* depends on its patience.

To write your own rule, subclass ``LayerRule`` and define ``check``::

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

_MIN_SAMPLES = 32
"""Values per unit needed to decide whether the unit is ever active."""


@dataclass(kw_only=True)
class VanishingGradient(LayerRule):
    """The mean magnitude of a weight's gradient is below ``threshold``.

    Biases, normalization scales and embeddings are excluded: small gradients are normal for them.
    """

    kinds = ("gradients",)
    advice = (
        "The layer hardly learns. Use ReLU-like activations, residual connections or normalization "
        "between it and the loss, or an initialization designed for the activation; check the "
        "layers behind it first. If the loss is as low as it can get, this is not a problem."
    )
    threshold: float = 1e-7
    patience: int = 2

    def check(self, observation: Observation) -> Iterator[Finding]:
        """Return the weights whose gradient is too small."""
        for tensor, found in _weights(observation, "gradients"):
            if found.abs_mean < self.threshold:
                what = "mean |gradient|"
                yield _finding(tensor, found.abs_mean, self.threshold, what)


@dataclass(kw_only=True)
class ExplodingGradient(LayerRule):
    """The norm of a gradient is above ``threshold``, or above ``growth`` times its recent median.

    The median is that of the last twenty logged norms, once there are five; a norm below 10 is
    never too large. SageMaker Debugger has no such rule.
    """

    kinds = ("gradients",)
    advice = (
        "Clip the gradient (torch.nn.utils.clip_grad_norm_), lower the learning rate or warm it "
        "up; in a recurrent network, shorten the sequences or use a gated cell. If the loss is a "
        "sum instead of a mean, large gradients are normal: raise the threshold."
    )
    threshold: float = 1e4
    growth: float = 100.0

    def __post_init__(self) -> None:
        """Initialize the history of norms."""
        super().__post_init__()
        self._norms: dict[str, deque[float]] = {}

    def check(self, observation: Observation) -> Iterator[Finding]:
        """Return the gradients that are too large."""
        for tensor in observation.of("gradients"):
            found = _statistics_of(tensor)
            before = self._norms.setdefault(tensor.name, deque(maxlen=20))
            bound = self.threshold
            if len(before) >= 5:
                bound = min(bound, max(self.growth * median(before), 10.0))
            if found.norm > bound:
                yield _finding(tensor, found.norm, bound, "norm of the gradient")
            elif math.isfinite(found.norm):
                before.append(found.norm)


@dataclass(kw_only=True)
class ExplodingTensor(LayerRule):
    """A gradient, parameter or output contains a NaN or an infinity."""

    kinds = ("gradients", "parameters", "activations")
    advice = (
        "NaNSource names the layer where it begins. Look for a division by zero, the logarithm or "
        "root of a number that is not positive, and numbers that are too large for float16."
    )

    def check(self, observation: Observation) -> Iterator[Finding]:
        """Return the arrays that are not finite."""
        for tensor in observation.of(*self.kinds):
            found = _statistics_of(tensor)
            if found.nan or found.inf:
                noun = _NOUNS[tensor.kind]
                what = f"NaNs and infinities among the {found.size:,} elements of its {noun}"
                yield _finding(tensor, found.nan + found.inf, 0, what)


_NOUNS = {"gradients": "gradient", "parameters": "values", "activations": "output"}
"""The noun for an array in messages, by kind."""


@dataclass(kw_only=True)
class NaNSource(LayerRule):
    """The first array with a NaN or an infinity, in the order of computation.

    The order is: parameters before the step, outputs from the input on, gradients from the loss
    back. The rule reports the origin within the first logged step that has NaNs or infinities; with
    ``every=1`` that is the step in which they first occur.
    """

    kinds = ("gradients", "parameters", "activations")
    advice = (
        "Check this layer first: its inputs were still finite. If it is a gradient and all outputs "
        "are finite, check the loss function next; if it is a parameter, an earlier update was not "
        "finite."
    )

    def check(self, observation: Observation) -> Iterator[Finding]:
        """Return the first array that is not finite."""
        order = [
            *observation.of("parameters"),
            *observation.of("activations"),
            *reversed(observation.of("gradients")),
        ]
        for tensor in order:
            found = _statistics_of(tensor)
            if found.nan or found.inf:
                kind = "infinities" if found.inf >= found.nan else "NaNs"
                noun = _NOUNS[tensor.kind]
                what = f"{kind} begin here; count among the {found.size:,} elements of its {noun}"
                yield _finding(tensor, found.nan + found.inf, 0, what)
                return


@dataclass(kw_only=True)
class WeightUpdateRatio(LayerRule):
    """The norm of an update divided by that of the weight is above ``large`` or below ``small``.

    Biases, scales and embeddings are excluded: the ratio is undefined if they start at zero.
    """

    kinds = ("updates",)
    advice = (
        "Healthy updates are about a thousandth of the weight. Too large: lower the learning rate. "
        "Too small: raise it, or check whether the layer gets a gradient at all and whether a "
        "schedule has reduced the rate to zero."
    )
    large: float = 10.0
    small: float = 1e-8
    patience: int = 2

    def check(self, observation: Observation) -> Iterator[Finding]:
        """Return the updates whose ratio is out of bounds."""
        for tensor in observation.of("updates"):
            if tensor.change and tensor.is_weight:
                ratio = tensor.change.ratio
                if ratio > self.large or ratio < self.small:
                    bound = self.large if ratio > self.large else self.small
                    yield _finding(tensor, ratio, bound, "update / weight")


@dataclass(kw_only=True)
class AllZero(LayerRule):
    """All elements of a weight, its gradient or an output are zero."""

    kinds = ("parameters", "gradients", "activations")
    advice = (
        "No signal passes here. A weight: initialize it with random numbers, because equal units "
        "learn the same. A gradient: the layer is cut off from the loss by a detach, a zero behind "
        "it or dead units. An output: check the inputs of the layer."
    )
    patience: int = 2

    def check(self, observation: Observation) -> Iterator[Finding]:
        """Return the arrays that are all zeros."""
        for tensor in observation.of(*self.kinds):
            found = _statistics_of(tensor)
            if (
                found.size
                and found.zeros == 1
                and (tensor.kind == "activations" or tensor.is_weight)
            ):
                yield _finding(tensor, 1.0, 1.0, f"share of zeros in its {_NOUNS[tensor.kind]}")


@dataclass(kw_only=True)
class UnchangedTensor(LayerRule):
    """A weight is the same before and after the update, at three logged steps in a row.

    As in ``numpy.allclose``, no element changes by more than 1e-8 + 1e-5 times its magnitude.
    SageMaker Debugger compares the values at logged steps; this rule compares them across one
    update.
    """

    kinds = ("updates",)
    advice = (
        "The layer does not learn. Check whether it is in the optimizer and gets a gradient, and "
        "whether the learning rate is what you expect. If it is frozen on purpose, call "
        "requires_grad_(False) to exclude it."
    )
    patience: int = 2

    def check(self, observation: Observation) -> Iterator[Finding]:
        """Return the weights that do not change."""
        for tensor in observation.of("updates"):
            if tensor.change and tensor.is_weight and not tensor.change.changed:
                yield _finding(tensor, 0.0, 0.0, "share of elements that change")


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
        """Return the layers with too many inactive units."""
        for tensor in observation.of("activations"):
            known = tensor.inactive is not None and tensor.samples >= _MIN_SAMPLES
            known = known and not _statistics_of(tensor).nan  # a NaN would count as inactive
            if known and tensor.role in self.roles and (tensor.inactive or 0) > self.share:
                yield _finding(tensor, tensor.inactive or 0, self.share, self.what)


@dataclass(kw_only=True)
class DeadRelu(_InactiveUnits):
    """More than ``share`` of a ReLU's units are above zero for less than ``activity`` of a batch.

    Layers with fewer than 32 values per unit in a batch are skipped.
    """

    roles = ("relu",)
    what = "share of units that are hardly ever above zero"
    advice = (
        "Lower the learning rate, start with smaller or no negative biases, scale the inputs, or "
        "use LeakyReLU, GELU or normalization before the activation."
    )


@dataclass(kw_only=True)
class SaturatedActivation(_InactiveUnits):
    """More than ``share`` of the units of a tanh or sigmoid are almost always saturated.

    That is, less than ``activity`` of a unit's inputs in the batch are between -9.4999 and 9.4999,
    or, for a sigmoid, between -23 and 16.99999. Layers with fewer than 32 values per unit in a
    batch are skipped.
    """

    roles = ("tanh", "sigmoid")
    what = "share of units that are saturated"
    advice = (
        "The gradient stops here. Scale or normalize the inputs of the layer, initialize the "
        "weights before it with less variance, or lower the learning rate."
    )


@dataclass(kw_only=True)
class PoorWeightInitialization(LayerRule):
    """At the start, the variances of layer outputs differ widely and a layer hardly learns.

    Two conditions must hold: the largest variance among the outputs of layers with weights is more
    than ``ratio`` times the smallest, and the 5th and 95th percentiles of a weight's gradient are
    less than ``spread`` apart; more than ``patience`` times in a row in the first ``steps`` logged
    steps. Either condition alone also occurs in healthy networks. Not a default rule: it fires for
    PyTorch's own initialization if four layers follow each other without normalization.
    """

    kinds = ("activations", "gradients")
    advice = (
        "Initialize for the activation that follows: torch.nn.init.kaiming_normal_ for ReLU, "
        "xavier_normal_ for tanh; no weight with equal or zero elements. Set every=1 to log all of "
        "the first steps."
    )
    ratio: float = 10.0
    spread: float = 1e-3
    steps: int = 10
    patience: int = 5

    def __post_init__(self) -> None:
        """Initialize the step count."""
        super().__post_init__()
        self._seen = 0

    @property
    def wants_spreads(self) -> bool:
        """Whether the rule still needs percentiles."""
        return self._seen < self.steps

    def check(self, observation: Observation) -> Iterator[Finding]:
        """Return the layer with the smallest output variance."""
        self._seen += 1
        outputs = [t for t in observation.of("activations") if t.role == "weighted"]
        spreads = [
            tensor.spread
            for tensor in observation.of("gradients")
            if tensor.is_weight and tensor.spread is not None
        ]
        if self._seen > self.steps or len(outputs) < 2 or not spreads:
            return
        variances = [_statistics_of(tensor).std ** 2 for tensor in outputs]
        smallest, largest = min(variances), max(variances)
        ratio = largest / smallest if smallest else math.inf if largest else 1.0
        if ratio > self.ratio and min(spreads) < self.spread:
            where = outputs[variances.index(smallest)].name
            what = (
                "largest output variance / that of this layer, while the 5th and 95th percentiles "
                f"of a gradient are {min(spreads):.2g} apart"
            )
            yield Finding(where, ratio, self.ratio, what)


def layer_rules(action: Action = "warn") -> list[LayerRule]:
    """Return the default rules of ``writer.watch``, all with the same action."""
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


def _finding(tensor: ObservedTensor, value: float, threshold: float, what: str) -> Finding:
    return Finding(tensor.name, value, threshold, what, tensor.kind)


def _statistics_of(tensor: ObservedTensor) -> Any:
    """Return the statistics of a tensor that has some."""
    return tensor.statistics


def _weights(observation: Observation, kind: str) -> Iterator[tuple[ObservedTensor, Any]]:
    for tensor in observation.of(kind):
        if tensor.is_weight:
            yield tensor, _statistics_of(tensor)
