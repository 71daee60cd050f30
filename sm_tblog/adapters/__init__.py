"""Adapters: a module a framework, which logs what the framework's own integration would, and more.

An adapter imports its framework when it is imported itself, and raises a
``MissingDependencyError`` that says what to install where that is missing. It uses the public API
alone, as another package would. Importing ``sm_tblog`` imports none of them.
"""
