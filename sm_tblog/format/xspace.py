"""The messages of a profile, from our own descriptor set in a private pool (see ``schema``).

They are declared in ``xspace.proto``; ``make proto`` compiles it to ``xspace.binpb``.
"""

from __future__ import annotations

from sm_tblog.format.descriptors import load_pool, message_class

__all__ = ["XEvent", "XSpace"]

_POOL = load_pool("xspace")

XEvent = message_class(_POOL, "tensorflow.profiler.XEvent")
XSpace = message_class(_POOL, "tensorflow.profiler.XSpace")
