"""The trainings that the demo compares: one that goes well, and two with common problems."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["RECIPES", "Recipe"]


class Recipe(NamedTuple):
    """The settings of one run.

    Attributes:
        name: the name of the run.
        learning_rate: the peak of the learning rate schedule.
        images: number of training images; None for all.
        lesson: what to look at in this run, tab by tab, as Markdown.
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
- **Custom Scalars**: the loss is almost the same on training and validation images: the network \
generalises.
- **Histograms**: the `weights` spread, and the gradients shrink as the network improves, most of \
all those of the last layer, `weight gradients/output`.
- **Images**: the units of the first layer have learnt to detect strokes, see `layer1/learnt`. \
Many of the `predictions/hardest digits` would puzzle a human.
- **Projector**: after the second hidden layer, each digit forms its own cluster.
- **Mesh**: the weights have reached the bottom of a valley.
""",
    ),
    Recipe(
        "too-slow",
        0.002,
        None,
        """\
- **Scalars**: `loss/validation` falls slowly and is still high at the end. The \
`optimizer/learning rate` is a hundredth of the healthy run's.
- **Histograms**: the `weights` hardly change, and the `weight gradients` stay wide: the minimum \
is still far away. A higher learning rate would help more than more steps.
- **Images**: `layer1/learnt` is still pale, and `predictions/confusion` shows many mistakes.
- **Audio**: the pitch, which follows the `loss`, hardly falls.
""",
    ),
    Recipe(
        "overfit",
        0.2,
        60,
        """\
- **Custom Scalars**: the two losses diverge. On the few training images, which the network has \
memorised, the loss is below the healthy run's; on the validation images it stays high.
- **Histograms**: the `weight gradients` vanish: there is nothing more to learn from these images. \
More images would help, or a smaller network.
- **Images**: `predictions/confusion` shows which digits are mistaken for which; 1 and 8 are the \
hardest to learn from so few images.
- **PR Curves**: `precision and recall` are below the healthy run's for most digits.
""",
    ),
)
