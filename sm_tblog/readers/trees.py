"""Chooses how a log directory is read, by its URL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sm_tblog.readers.local_tree import LocalTree
from sm_tblog.storage.base import scheme_of
from sm_tblog.storage.local import local_path
from sm_tblog.storage.s3_options import OF_WRITERS
from sm_tblog.storage.urls import is_s3

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sm_tblog.readers.base import Tree

__all__ = ["open_tree"]


def open_tree(
    url: str,
    storage_options: Mapping[str, Any],
    *,
    is_deep: bool = False,
    prefix: str = "",
) -> Tree:
    """Return the tree at a path or URL.

    Args:
        url: the root.
        storage_options: as for a writer; for other URLs than S3's, passed to the file system.
        is_deep: the folders below the root are needed too; saves requests.
        prefix: only folders whose names start with it are needed; they are listed alone where that
            saves requests.

    Raises:
        InvalidValueError: an option is unknown, or there is no file system for the URL.
        MissingDependencyError: the file system needs a package that is not installed.
        StoreError: the file system cannot be created.
    """
    options = {name: storage_options[name] for name in storage_options if name not in OF_WRITERS}
    if scheme_of(url) == "file":
        return LocalTree(str(local_path(url)))
    if is_s3(url):
        from sm_tblog.readers.s3_tree import S3Tree

        return S3Tree(url, options, is_deep=is_deep, prefix=prefix)
    from sm_tblog.readers.fsspec_tree import open_fsspec_tree

    return open_fsspec_tree(url, options)
