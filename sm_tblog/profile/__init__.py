"""Profiles: what the steps of a training loop spend their time on, for TensorBoard's Profile tab.

``spans`` records what the script marks; ``session`` opens and closes sessions and writes them;
``engines`` says what may record beside them; ``xspace`` is the format. Nothing here knows the
writer: it is passed in, and used by what it is called with.
"""

from __future__ import annotations
