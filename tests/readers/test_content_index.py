"""The places of each tag's values, in the order in which they were written."""

from hypothesis import given
from hypothesis import strategies as st

from sm_tblog.format import schema
from sm_tblog.readers.content_index import ContentIndex, Place
from sm_tblog.readers.selection import Selection


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20))), st.integers(0, 20))
def test_places_are_grouped_by_tag(values, end):
    index = ContentIndex(Selection(steps=range(end)))
    for number, (tag, step) in enumerate(values):
        event = schema.Event(step=step, wall_time=step / 2)
        index.append((tag, "text"), event, Place(0, number, 7), 1)
    places = index.places()
    assert list(places) == list(dict.fromkeys((tag, "text") for tag, _ in values))
    for (tag, _), found in places.items():
        expected = [
            (i, step) for i, (name, step) in enumerate(values) if name == tag and step < end
        ]
        assert list(zip(found.offset.tolist(), found.step.tolist(), strict=True)) == expected
        assert found.wall_time.tolist() == [step / 2 for _, step in expected]
        assert set(found.length.tolist()) <= {7}
