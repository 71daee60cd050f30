"""The Profile tab shows what a session recorded: looked at in a real browser, and asked for.

The page "Find the bottleneck" of the documentation is run, and TensorBoard with its profile plugin
serves what it has written. So the pictures that are left, as in ``test_tabs``, are what the
readers of that page see.
"""

import csv
import gzip
import io
import json
import os
import re
import subprocess
import sys
import urllib.parse
import urllib.request

import pytest
from browser import Page, artifacts_folder, chromium, needs_chromium, tensorboard
from doc_blocks import DOCS, blocks_of
from profiles import events_of, sessions

import sm_tblog
from sm_tblog.format.xspace import XSpace

pytestmark = [pytest.mark.slow, needs_chromium]

pytest.importorskip("xprof", reason="the plugin of the Profile tab: pip install xprof")
pytest.importorskip("torch", reason="what the page trains with: pip install torch")

STEPS = [6, 7, 8, 9]
SESSIONS = ("as-it-is/digits-step6", "decoded-once/digits-step6")

RANK = """
from sm_tblog import Schedule, Writer

with Writer("runs/job") as writer, writer.profiler(Schedule(wait=1, active=3)) as profiler:
    for _ in writer.track(range(5)):
        sum(range(10_000))
        profiler.step()
"""
SLICES = """
const view = document.querySelector("tr-ui-timeline-view");
if (!view || !view.model) return [];
const found = [];
for (const event of view.model.getDescendantEvents())
  if (event.duration !== undefined) found.push([event.title, event.start, event.duration]);
return found;
"""


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bottleneck")
    source = "\n".join(block.code for block in blocks_of(DOCS / "find-the-bottleneck.md"))
    (folder / "page.py").write_text(source, encoding="utf-8")
    command = [sys.executable, "page.py"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    for rank in "01":
        environment = {**os.environ, "RANK": rank, "WORLD_SIZE": "2", "SLURM_JOB_ID": "4711"}
        subprocess.run([sys.executable, "-c", RANK], cwd=folder, env=environment, check=True)
    return folder / "runs"


@pytest.fixture(scope="module")
def recorded(logdir):
    """The events of each session, as protobuf reads them."""
    found = {}
    for run in ("as-it-is", "decoded-once"):
        (file,) = sessions(logdir / run)["digits-step6"]
        found[f"{run}/digits-step6"] = list(events_of(XSpace.FromString(file.read_bytes())))
    return found


@pytest.fixture(scope="module")
def address(logdir):
    def is_ready(address):
        with urllib.request.urlopen(f"{address}data/plugin/scalars/tags") as answer:
            runs = json.load(answer)
        return all("profile/input_ms" in runs.get(run, {}) for run in ("as-it-is", "decoded-once"))

    with tensorboard(logdir, is_ready) as address:
        yield address


@pytest.fixture(scope="module")
def driver():
    with chromium() as driver:
        yield driver


@pytest.fixture
def page(driver, address, tmp_path_factory):
    driver.switch_to.default_content()
    page = Page(driver, address)
    yield page
    driver.switch_to.default_content()
    picture = str(artifacts_folder(tmp_path_factory) / f"{page.picture}.png")
    driver.save_screenshot(picture)
    print(f"picture of the tab: {picture}")  # noqa: T201 - shown with a failure


def named(events, name):
    return [event for event in events if event.name == name]


def steps_of(events):
    """Milliseconds of each step by its number."""
    return {
        event.stats["step_num"]: event.duration / 1e6
        for event in named(events, "step")
        if event.stats.get("_r") == 1
    }


@pytest.fixture
def hosts(address):
    """``hosts(session)``: the names of its hosts, as the plugin lists them."""

    def hosts(session):
        listed = json.loads(fetch(address, "hosts", run=session, tag="trace_viewer@"))
        return [host["hostname"] for host in listed if host["hostname"] != "ALL_HOSTS"]

    return hosts


@pytest.fixture
def ask(address, hosts):
    """``ask(route, session, tool)``: what the plugin answers, as text."""

    def ask(route, session, tool):
        (host,) = hosts(session)
        return fetch(address, route, run=session, tag=tool, host=host)

    return ask


def fetch(address, route, **query):
    url = f"{address}data/plugin/profile/{route}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url) as answer:
        data = answer.read()
    return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()


@pytest.mark.parametrize("session", SESSIONS)
def test_the_plugin_counts_the_steps_and_their_times_as_recorded(ask, recorded, session):
    tables = json.loads(ask("data", session, "overview_page"))
    breakdown = next(table for table in tables if "steptime" in str(table["cols"]).lower())
    shown = {}
    for row in breakdown["rows"]:
        tooltip = next(str(c["v"]) for c in row["c"] if "duration" in str(c["v"]))
        (number,) = re.findall(r"^Step step (\d+)", tooltip)
        shown[int(number)] = row["c"][-1]["v"]
    steps = steps_of(recorded[session])
    assert list(steps) == STEPS
    assert shown == pytest.approx(steps, abs=1e-6)


@pytest.mark.parametrize("session", SESSIONS)
def test_the_plugin_sums_up_waits_and_operators_as_recorded(ask, recorded, session):
    table = csv.DictReader(io.StringIO(ask("data_csv", session, "framework_op_stats")))
    shown = {
        row["Operation Name"]: (float(row["#Occurrences"]), float(row["Total time (us)"]))
        for row in table
    }
    for name in ("wait for input", "aten::mm", "aten::max_pool2d_with_indices"):
        events = named(recorded[session], name)
        assert len(events) >= len(STEPS)
        total = sum(event.duration for event in events) / 1e3
        assert shown[name.replace("::", "__")] == pytest.approx((len(events), total), abs=1e-3)


def test_the_ranks_of_a_job_are_hosts_of_one_session(hosts, logdir):
    (files,) = sessions(logdir / "job").values()
    assert [file.parent.name for file in files] == ["4711-step1"] * 2
    assert hosts("job/4711-step1") == [file.name.removesuffix(".xplane.pb") for file in files]
    assert [host[:6] for host in hosts("job/4711-step1")] == ["rank0-", "rank1-"]


def test_the_scalars_are_the_steps_of_the_session(logdir, recorded):
    for session in SESSIONS:
        scalars = sm_tblog.read(logdir / session.partition("/")[0]).scalars["profile/step_time_ms"]
        logged = dict(zip(scalars.step.tolist(), scalars.value.tolist(), strict=True))
        steps = steps_of(recorded[session])
        for number in STEPS[:-1]:
            assert steps[number] == pytest.approx(logged[number], rel=1e-6)
        # The last one is open when the session ends, and lasts while engines are stopped.
        assert 0 < steps[STEPS[-1]] < logged[STEPS[-1]]


def open_tool(page, session, tool):
    """Open a tool of a session, and enter the frame that it is in."""
    page.open("profile")
    page.enter_frame()

    def chosen():
        """Choose what is not chosen yet. Whenever something is, the menus hide."""
        menus = page.all("mat-select")[:2]
        if len(menus) < 2:
            page.click("button", "menu")
            return False
        for menu, wanted in zip(menus, (session, tool), strict=True):
            if wanted not in page.text(menu):
                menu.click()
                page.click("mat-option", wanted)
                return False
        page.click("button", "menu")
        return True

    page.wait(chosen, every=1)


def test_the_overview_says_that_the_loop_waits_for_its_input(page, recorded):
    open_tool(page, SESSIONS[0], "Overview Page")
    page.picture = "overview"
    waits = named(recorded[SESSIONS[0]], "wait for input")
    mean = sum(wait.duration for wait in waits) / len(STEPS) / 1e6
    card = page.card("div", "Input Time", f"{mean:.1f} ms")
    page.wait_until_still(card)  # the menus hide


@pytest.mark.parametrize(
    ("session", "picture"), [(SESSIONS[0], "trace"), (SESSIONS[1], "trace-cured")]
)
def test_the_trace_viewer_draws_steps_spans_and_operators(page, recorded, session, picture):
    open_tool(page, session, "Trace Viewer")
    page.picture = picture
    page.enter_frame()
    events = recorded[session]
    begin = min(event.begin for event in events)
    slices = page.wait(page.driver.execute_script, SLICES, every=1)
    for number, step in zip(STEPS, named(events, "step"), strict=True):
        (shown,) = [one for one in slices if one[0] == f"step {number}"]
        assert shown[2] == pytest.approx(step.duration / 1e6, abs=1e-6)
    for name in ("wait for input", "forward", "backward", "update", "aten::convolution"):
        shown = [one for one in slices if one[0] == name]
        wanted = [((e.begin - begin) / 1e6, e.duration / 1e6) for e in named(events, name)]
        assert sorted(one[2] for one in shown) == pytest.approx(sorted(d for _, d in wanted))
    page.driver.switch_to.parent_frame()
    (frame,) = page.all("iframe")
    page.wait(lambda: page.colours(frame) > 8)


def test_the_scalars_tab_compares_the_runs(page):
    tags = "input_ms|step_time|examples"
    runs = "as-it-is|decoded-once"
    page.open("scalars", tags=tags, runs=runs, picture="scalars", outliers=True)
    for tag in ("input_ms", "step_time_ms", "examples_per_s"):
        card = page.card("tf-scalar-card", tag)
        # Smoothed and as it is. The latter may leave the chart for some steps; a mark is shorter.
        page.wait(lambda card=card: sum(length > 4 for length in page.lines(card)) == 2 * 2)
