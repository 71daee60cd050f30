"""What looks on while a model trains: at the machine, at the model's arrays, and what is wrong.

========================================  ====================================================
``system``, ``host``, ``cgroup``,         the machine and the process; it is passed a writer, and
``gpu``, ``rates``                        uses its public methods
``statistics``, ``torch_statistics``,     arrays to a few numbers, where they are
``jax_statistics``, ``collector``
``observation``, ``recorder``             arrays with names to what is logged of them
``rule``, ``rules``, ``losses``,          what is wrong, and what happens then
``rulebook``
``torch_model``, ``activations``,         where frameworks have arrays, and when; the writer passes
``keras_model``, ``trees``, ``handle``    them a function that has the worker build something
========================================  ====================================================
"""
