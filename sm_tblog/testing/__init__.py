"""Conformance test suites for stores and sinks, and stores that fail on purpose.

To test a new store or sink, subclass a suite in its tests; the subclass inherits all tests::

    class TestBucketStore(StoreTests):
        @pytest.fixture
        def folder(self, bucket):
            return f"bucket://{bucket}/run"

        def read_back(self, folder, name):
            return raw_client.get(folder, name)  # not through the store

The suites need pytest.
"""

from sm_tblog.testing.faults import FlakyStore, SlowStore
from sm_tblog.testing.sinks import SinkTests, make_batch
from sm_tblog.testing.stores import StoreTests

__all__ = ["FlakyStore", "SinkTests", "SlowStore", "StoreTests", "make_batch"]
