"""Indexes of many runs: Parquet files that open thousands of runs in a handful of requests."""

from sm_tblog.indexing.build import index
from sm_tblog.indexing.many import read_many
from sm_tblog.indexing.opened import Index

__all__ = ["Index", "index", "read_many"]
