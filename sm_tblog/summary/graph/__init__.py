"""Graphs of models, for the Graphs tab.

``reading`` selects the reader for a model: a module named after the framework. The reader returns a
``Graph`` on the calling thread, because the model may change afterwards. ``encoding`` serializes
the graph on the worker thread.
"""

from sm_tblog.summary.graph.encoding import graph_event, graph_value

__all__ = ["graph_event", "graph_value"]
