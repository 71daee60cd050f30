"""Which file system holds a folder, and what makes the bytes written there visible to others.

On a local disk, a written byte is visible. Network file systems keep it in the memory of this
machine for a while. File systems in user space that present a bucket upload a file when it is
closed, some also at ``fsync``. Linux names the file system of an open folder; on other systems, and
where the name cannot be found, the folder is treated as one on a local disk.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

__all__ = ["LOCAL", "Mount", "Sync", "mount_of"]

Sync = Literal["fsync", "close"] | None
"""The call that makes written bytes visible; None if they are visible already."""


class Mount(NamedTuple):
    """A kind of file system.

    Attributes:
        sync: the call that makes written bytes visible.
        rewrites: whether that call stores the whole file again.
        has_stable_inodes: whether a file keeps its inode number after it was closed.
    """

    sync: Sync = None
    rewrites: bool = False
    has_stable_inodes: bool = True


LOCAL = Mount()
_NETWORK = Mount("fsync")
_SHARED = Mount("fsync", has_stable_inodes=False)
_BUCKET = Mount("fsync", rewrites=True, has_stable_inodes=False)
_ANY_FUSE = Mount("close", rewrites=True, has_stable_inodes=False)

_MOUNTS = {
    **dict.fromkeys(
        (
            *("9p", "afs", "autofs", "beegfs", "ceph", "cifs", "coda", "gpfs", "lustre", "ncpfs"),
            *("nfs", "nfs4", "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "wekafs"),
        ),
        _NETWORK,
    ),
    **dict.fromkeys(
        (
            *("fuse.ceph", "fuse.ceph-fuse", "fuse.glusterfs", "fuse.juicefs", "fuse.lizardfs"),
            *("fuse.mfs", "fuse.moosefs", "fuse.saunafs", "fuse.sshfs"),
        ),
        _SHARED,
    ),
    "fuse.s3fs": _BUCKET,
    **dict.fromkeys(  # on a local disk
        (
            *("fuse.bindfs", "fuse.encfs", "fuse.exfat", "fuse.fuse-overlayfs", "fuse.fuse2fs"),
            *("fuse.gocryptfs", "fuse.grpcfuse", "fuse.lxcfs", "fuse.mergerfs", "fuse.ntfs-3g"),
            *("fuse.osxfs", "fuse.snapfuse", "fuse.unionfs", "fuse.unionfs-fuse"),
        ),
        LOCAL,
    ),
}


def mount_of(folder: Path) -> Mount:
    """Return the kind of file system of a folder or, until it exists, of the closest one above."""
    return _kind(_type_of(folder))


def _kind(name: str) -> Mount:
    is_fuse = name == "fuse" or name.startswith("fuse.")
    return _MOUNTS.get(name, _ANY_FUSE if is_fuse else LOCAL)


def _type_of(folder: Path) -> str:
    """Return the name of a folder's file system, such as ``ext4`` or ``fuse.s3fs``, or ""."""
    if sys.platform != "linux":
        return ""
    for path in (folder, *folder.absolute().parents):
        try:
            descriptor = os.open(path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return ""
        try:
            return _type_of_open(descriptor)
        except (OSError, ValueError):
            return ""
        finally:
            os.close(descriptor)
    return ""


def _type_of_open(descriptor: int) -> str:
    notes = Path(f"/proc/self/fdinfo/{descriptor}").read_bytes().split()
    mount = notes[notes.index(b"mnt_id:") + 1]
    return _type_of_mount(mount, os.fstat(descriptor).st_dev)


@lru_cache(maxsize=64)
def _type_of_mount(mount: bytes, device: int) -> str:  # noqa: ARG001 - mounts' numbers are reused
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        # id, parent, device, root, mount point, options, optional fields, "-", type, source, …
        fields = line.split(b" ")
        if fields[0] == mount:
            return fields[fields.index(b"-", 6) + 1].decode(errors="replace")
    return ""
