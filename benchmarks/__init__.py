"""Benchmarks against ``torch.utils.tensorboard``, tensorboardX and readers of event files.

``python -m benchmarks`` runs every benchmark and prints a table.

Method:

- A claim about speed is a ratio, or a share of a loop's time. It is the median over many rounds,
  measured alternately in one process. Absolute figures are given for orientation.
- Every ratio comes with the interval that contains the true median in 95 of 100 repetitions.
- torch's and tensorboardX's writers are used as documented, with their defaults.
- The cost of the calling loop is included, which makes our figures worse, not better.
- After each measurement, code that is not part of the library counts the records in the files:
  losing data is not a way to be fast.

Each benchmark is a function that returns figures. ``BENCHMARKS`` lists them, with smaller sizes
for a quick run and for the tests.
"""

from __future__ import annotations
