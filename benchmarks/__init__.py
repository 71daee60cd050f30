"""How fast this library is, beside ``torch.utils.tensorboard`` and tensorboardX.

``python -m benchmarks`` runs every benchmark and prints a table.

How it is measured:

- A claim about speed is a ratio, or a share of a loop's time, of things measured in turns in one
  process, and is the median over many turns. Absolute figures stand beside it for orientation.
- Every ratio has the interval that holds the true median in 95 of 100 repetitions.
- The peers are used as their documentation shows them, with their defaults.
- Whatever the caller's own loop costs is left in, which makes our figures worse, not better.
- After each measurement the records in the files are counted, by other code than the library's:
  losing data is not a way to be fast.

Each benchmark is a function that returns figures; ``BENCHMARKS`` lists them with smaller sizes for
a quick look and for the tests.
"""

from __future__ import annotations
