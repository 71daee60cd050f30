"""Adapters: one module per framework.

Each logs what the framework's own integration does, and more.

Importing an adapter imports its framework. If the framework is not installed, the import raises a
``MissingDependencyError`` that names the package to install. Adapters use only the public API, as
any other package would. Importing ``sm_tblog`` imports no adapter.
"""
