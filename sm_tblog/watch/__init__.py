"""Record a model's arrays during training, and evaluate rules on them.

=====================================  ========================================================
``statistics``, ``torch_statistics``,  reduce arrays to a few numbers, on the device where they are
``jax_statistics``, ``collector``
``recorder``                           turns named arrays into scalars, histograms and an
                                       ``Observation``, and evaluates the rules on it
``torch_model``, ``activations``,      obtain the arrays from each framework at the right time; the
``keras_model``, ``trees``             writer passes a function that queues builds on the worker
                                       thread
``handle``, ``selection``              what ``writer.watch`` returns; which arrays are watched
=====================================  ========================================================
"""
