"""Places that bytes go to, chosen by the scheme of a URL."""

from sm_tblog.storage.base import Appender, Store, open_store, register_store

__all__ = ["Appender", "Store", "open_store", "register_store"]
