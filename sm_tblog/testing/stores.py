"""Conformance tests that every store must pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from sm_tblog._errors import InvalidValueError
from sm_tblog.storage.base import Store, open_store

__all__ = ["StoreTests"]


class StoreTests:
    """Tests for a store. Define the fixture ``folder`` and the method ``read_back``.

    ``read_back`` must not use the store. By default, both use a local folder.
    """

    @pytest.fixture
    def folder(self, tmp_path: Path) -> str:
        """Return the URL of a folder that does not exist yet."""
        return str(tmp_path / "run")

    def open(self, folder: str, name: str) -> Store:
        """Return a new store."""
        return open_store(folder, name)

    def read_back(self, folder: str, name: str) -> bytes | None:
        """Return the content of a file without using the store, None if there is no such file."""
        path = Path(folder) / name
        return path.read_bytes() if path.exists() else None

    def test_is_a_store_that_says_where(self, folder: str) -> None:
        store = self.open(folder, "file")
        assert isinstance(store, Store)
        assert "file" in str(store)
        assert store.flush_secs > 0

    def test_making_closing_and_flushing_write_nothing(self, folder: str) -> None:
        store = self.open(folder, "file")
        store.flush()
        store.close()
        assert self.read_back(folder, "file") is None

    def test_appends_are_read_in_order(self, folder: str) -> None:
        store = self.open(folder, "file")
        pieces = [bytes([i]) * (1 + i * 37) for i in range(50)]
        for piece in pieces:
            store.append(piece)
        store.flush()
        assert self.read_back(folder, "file") == b"".join(pieces)
        store.close()

    def test_every_flush_shows_all_and_the_file_only_grows(self, folder: str) -> None:
        store = self.open(folder, "file")
        expected = b""
        for i in range(5):
            piece = bytes([65 + i]) * 1000
            store.append(piece)
            expected += piece
            store.flush()
            assert self.read_back(folder, "file") == expected
        store.close()
        assert self.read_back(folder, "file") == expected

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_takes_any_bytes(self, folder: str, kind: type) -> None:
        store = self.open(folder, "file")
        store.append(kind(b"some bytes"))
        store.append(kind(b""))
        store.put("side", kind(b"more bytes"))
        store.close()
        assert self.read_back(folder, "file") == b"some bytes"
        assert self.read_back(folder, "side") == b"more bytes"

    def test_large_appends_arrive_whole(self, folder: str) -> None:
        store = self.open(folder, "file")
        large = bytes(range(256)) * (1 << 15)
        store.append(large)
        store.append(b"end")
        store.close()
        assert self.read_back(folder, "file") == large + b"end"

    def test_closing_twice_is_harmless(self, folder: str) -> None:
        store = self.open(folder, "file")
        store.append(b"bytes")
        store.close()
        store.close()
        assert self.read_back(folder, "file") == b"bytes"

    def test_side_files_are_replaced_whole(self, folder: str) -> None:
        store = self.open(folder, "file")
        store.put("plugins/projector/config", b"a long first version")
        store.put("plugins/projector/config", b"second")
        store.put("other", b"")
        store.append(b"bytes")
        store.close()
        assert self.read_back(folder, "plugins/projector/config") == b"second"
        assert self.read_back(folder, "other") == b""
        assert self.read_back(folder, "file") == b"bytes"

    def test_side_files_are_read_back(self, folder: str) -> None:
        store = self.open(folder, "file")
        assert store.get("plugins/projector/config") is None
        store.put("plugins/projector/config", b"first")
        store.put("plugins/projector/config", b"second")
        assert store.get("plugins/projector/config") == b"second"
        assert self.open(folder, "another").get("plugins/projector/config") == b"second"
        assert store.get("plugins/projector") is None
        store.put("plugins/projector/config", lambda before: (before or b"") + b" and third")
        store.put("other", lambda before: b"new" if before is None else before)
        assert store.get("plugins/projector/config") == b"second and third"
        assert store.get("other") == b"new"
        store.close()

    @pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", ""])
    def test_side_files_stay_below_the_folder(self, folder: str, name: str) -> None:
        with pytest.raises(InvalidValueError, match="side file"):
            self.open(folder, "file").put(name, b"bytes")
        with pytest.raises(InvalidValueError, match="side file"):
            self.open(folder, "file").get(name)

    def test_stores_in_one_folder_keep_apart(self, folder: str) -> None:
        first, second = self.open(folder, "first"), self.open(folder, "second")
        for i in range(10):
            first.append(b"1" * i)
            second.append(b"2" * i)
        first.close()
        second.close()
        assert self.read_back(folder, "first") == b"1" * 45
        assert self.read_back(folder, "second") == b"2" * 45
