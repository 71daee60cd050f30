"""Stores: where bytes are written, chosen by the scheme of a URL."""

from sm_tblog.storage.base import (
    Appender,
    Store,
    StoreLostError,
    open_store,
    register_store,
    side_file_path,
)

__all__ = [
    "Appender",
    "Store",
    "StoreLostError",
    "open_store",
    "register_store",
    "side_file_path",
]
