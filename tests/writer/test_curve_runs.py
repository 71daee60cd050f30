"""The runs of the curves of ``add_scalars``: no two curves of a chart share one."""

import pickle

from sm_tblog import Writer


def test_curves_with_similar_names_stay_apart(tmp_path, read_scalars, caplog):
    with Writer(tmp_path) as writer:
        for step in range(2):
            writer.add_scalars("a", {"x/y": 1.0, "x_y": 2.0, "x\\y": 3.0, "z": 4.0}, step)
    assert {run: tags["a"] for run, tags in read_scalars(tmp_path).items()} == {
        "a_x_y": [(0, 1.0), (1, 1.0)],
        "a_x_y_2": [(0, 2.0), (1, 2.0)],
        "a_x_y_3": [(0, 3.0), (1, 3.0)],
        "a_z": [(0, 4.0), (1, 4.0)],
    }
    assert caplog.text.count("would both be the run 'a_x_y'") == 2


def test_a_curve_that_has_the_name_of_a_renamed_one(tmp_path, read_scalars):
    with Writer(tmp_path) as writer:
        writer.add_scalars("a", {"x/y": 1.0, "x_y": 2.0}, 0)
        writer.add_scalars("a", {"x_y_2": 3.0, "x_y": 4.0, "x/y": 5.0}, 1)
    assert {run: tags["a"] for run, tags in read_scalars(tmp_path).items()} == {
        "a_x_y": [(0, 1.0), (1, 5.0)],
        "a_x_y_2": [(0, 2.0), (1, 4.0)],
        "a_x_y_2_2": [(1, 3.0)],
    }


def test_charts_of_one_directory_do_not_rename_each_other(tmp_path, read_scalars, caplog):
    with Writer(tmp_path) as writer:
        writer.add_scalars("a/b", {"x": 1.0}, 0)
        writer.add_scalars("a_b", {"x": 2.0}, 0)
    assert read_scalars(tmp_path) == {"a_b_x": {"a/b": [(0, 1.0)], "a_b": [(0, 2.0)]}}
    assert caplog.text == ""


def test_children_and_copies_keep_curves_apart(tmp_path, read_scalars):
    with Writer(tmp_path) as writer:
        writer.add_scalars("a", {"x/y": 1.0}, 0)
        writer.child("run").add_scalars("a", {"x_y": 2.0}, 0)
        writer.child("run").add_scalars("a", {"x/y": 3.0}, 0)
        with pickle.loads(pickle.dumps(writer)) as copy:
            copy.add_scalars("a", {"x_y": 4.0}, 0)
    assert {run: tags["a"] for run, tags in read_scalars(tmp_path).items()} == {
        "a_x_y": [(0, 1.0)],
        "a_x_y_2": [(0, 4.0)],
        "run/a_x_y": [(0, 2.0)],
        "run/a_x_y_2": [(0, 3.0)],
    }


def test_one_curve_is_one_run_whatever_the_type_of_its_name(tmp_path, read_scalars):
    with Writer(tmp_path) as writer:
        writer.add_scalars("a", {1: 1.0}, 0)
        writer.add_scalars("a", {"1": 2.0}, 1)
    assert read_scalars(tmp_path) == {"a_1": {"a": [(0, 1.0), (1, 2.0)]}}
