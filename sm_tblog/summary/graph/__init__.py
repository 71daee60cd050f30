"""Graphs of models, for the Graphs tab.

``reading`` finds the reader for a model, a module of the framework's name; that makes a ``Graph``
of it while the caller waits, since the model may change afterwards. ``encoding`` makes bytes of the
graph on the worker.
"""

from sm_tblog.summary.graph.encoding import graph_event, graph_value

__all__ = ["graph_event", "graph_value"]
