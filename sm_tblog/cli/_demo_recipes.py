"""The trainings that the demo compares: one that goes well, and two with common faults."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["RECIPES", "Recipe"]


class Recipe(NamedTuple):
    """What makes one run differ from another.

    Attributes:
        name: the run's name, a folder.
        learning_rate: the highest that the schedule reaches.
        images: how many to learn from, None for all.
        lesson: Markdown: what this run teaches, tab by tab.
    """

    name: str
    learning_rate: float
    images: int | None
    lesson: str


RECIPES = (
    Recipe(
        "healthy",
        0.2,
        None,
        """\
- **Scalars**: `loss/validation` falls steeply, then levels off.
- **Custom Scalars**: the loss is almost the same on the images learnt from and on the others: \
the network has found what the digits have in common.
- **Histograms**: the `weights` spread, and as the network gets better the gradients shrink, those \
of the last layer most: `weight gradients/output`.
- **Images**: the units of the first layer have learnt to look for strokes, `layer1/learnt`. Many \
of the `predictions/hardest digits` would puzzle a human.
- **Projector**: behind the second hidden layer, each digit has a place of its own.
- **Mesh**: the weights have come to the bottom of a valley.
""",
    ),
    Recipe(
        "too-slow",
        0.002,
        None,
        """\
- **Scalars**: `loss/validation` creeps down and is far from the bottom at the end. The \
`optimizer/learning rate` is a hundredth of the healthy run's.
- **Histograms**: the `weights` hardly move, and the `weight gradients` stay wide: there is a long \
way to go. Longer steps would help more than more of them.
- **Images**: `layer1/learnt` is still pale, and `predictions/confusion` is just that.
- **Audio**: the tone of the `loss` hardly falls.
""",
    ),
    Recipe(
        "overfit",
        0.2,
        60,
        """\
- **Custom Scalars**: the two losses part. On the few images learnt from, which the network knows \
by heart, it is below the healthy run's; on the others it stays high.
- **Histograms**: the `weight gradients` vanish: these images have nothing more to teach. More of \
them would help, or a smaller network.
- **Images**: `predictions/confusion` shows which digits it mistakes for which others; 1 and 8 are \
the hardest to learn from so few.
- **PR Curves**: `precision and recall` are below the healthy run's for most digits.
""",
    ),
)
