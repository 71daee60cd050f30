"""Every tab of TensorBoard shows what the demo logs: looked at in a real browser.

The demo is run once, TensorBoard is started on its logs with its default loader, and headless
Chromium opens one tab a test. A test waits until the tab holds what it looks for, in whatever
shadow tree or frame. However it ends, a picture of the tab is left in the folder that
``SM_TBLOG_ARTIFACTS`` names, or else in one of pytest's, which a failure prints.
"""

import itertools
import json
import subprocess
import sys
import urllib.request

import pytest
from browser import Page, artifacts_folder, chromium, needs_chromium, tensorboard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = [pytest.mark.slow, needs_chromium]

RUNS = ("healthy", "overfit", "too-slow")
EPOCHS = 20
STEPS = EPOCHS * (1347 // 64)


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "sm_tblog", "demo", "--backend", "sklearn"]
    done = subprocess.run(
        [*command, "--epochs", str(EPOCHS), "--logdir", "runs/demo"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "demo"


@pytest.fixture(scope="module")
def logged(logdir):
    """What TensorBoard's own code reads of each run."""
    runs = {}
    for name in RUNS:
        sizes = {"scalars": 0, "tensors": 0, "images": 0, "audio": 0}
        runs[name] = EventAccumulator(str(logdir / name), size_guidance=sizes)
        runs[name].Reload()
    return runs


@pytest.fixture(scope="module")
def address(logdir):
    """Where TensorBoard serves the logs, once it has read them."""
    # The page asks for what there is once, and then not again for a while.
    with tensorboard(logdir, lambda address: set(RUNS) <= set(read_whole(address))) as address:
        yield address


def read_whole(address):
    """Return the runs of which TensorBoard has read the last that is logged."""
    with urllib.request.urlopen(f"{address}data/plugin/text/tags") as answer:
        return [run for run, tags in json.load(answer).items() if "predictions/by digit" in tags]


@pytest.fixture(scope="module")
def driver():
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return artifacts_folder(tmp_path_factory)


@pytest.fixture
def page(driver, address, artifacts):
    driver.switch_to.default_content()
    driver.get_log("browser")  # what earlier tests have left
    page = Page(driver, address)
    yield page
    picture = str(artifacts / f"{page.picture}.png")
    driver.save_screenshot(picture)
    print(f"picture of the tab: {picture}")  # noqa: T201 - shown with a failure
    errors = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []


def test_time_series_tab_draws_every_run_and_tells_its_last_value(page, logged):
    page.open("timeseries")
    card = page.card("card-view", "accuracy/validation", *RUNS)
    (canvas,) = page.wait(page.all, "line-chart canvas", card)
    page.wait(lambda: page.colours(canvas) > 20)
    for run in logged.values():
        assert f"{run.Scalars('accuracy/validation')[-1].value:.4g}" in page.text(card)


def test_scalars_tab_draws_every_run_smoothed_and_as_it_is(page):
    page.open("scalars")
    for tag in ("accuracy/train", "accuracy/validation"):
        card = page.card("tf-scalar-card", tag)
        page.wait(lambda card=card: page.lines(card).count(EPOCHS) == 2 * len(RUNS))
    for group in ("best", "loss", "loss of an image", "optimizer"):
        assert page.card("tf-category-paginated-view", group)
    page.show(page.card("tf-scalar-card", "accuracy/train"))


def test_custom_scalars_tab_draws_charts_of_both_kinds(page):
    page.open("custom_scalars")
    for title in ("loss", "accuracy"):
        card = page.card("tf-custom-scalar-multi-line-chart-card", title)
        page.wait(lambda card=card: page.lines(card).count(EPOCHS) == 2 * 2 * len(RUNS))
    card = page.card("tf-custom-scalar-margin-chart-card", "loss of an image")
    page.wait(lambda: page.lines(card).count(EPOCHS) >= len(RUNS))
    # A margin's outline goes there and back. What is out of the chart is left out of it.
    page.wait(lambda: sum(length > EPOCHS for length in page.lines(card)) == len(RUNS))
    page.show(card)


def test_distributions_tab_draws_bands_for_every_run(page):
    page.open("distributions")
    for run in RUNS:
        card = page.card("tf-distribution-loader", "predictions/confidence", run)
        page.wait(lambda card=card: page.lines(card).count(2 * EPOCHS) == 8)
    page.show(page.card("tf-distribution-loader", "predictions/confidence", "healthy"))


def test_histograms_tab_draws_a_line_for_every_epoch(page):
    page.open("histograms")
    for run in RUNS:
        card = page.card("tf-histogram-loader", "predictions/confidence", run)
        page.wait(lambda card=card: page.lines(card, "#svg path").count(32) == EPOCHS)
    page.show(page.card("tf-histogram-loader", "predictions/confidence", "healthy"))


def test_images_tab_shows_every_image_of_every_run(page):
    tags = ("layer1/learning", "layer1/learnt", "predictions/confusion")
    tags += ("predictions/hardest digits", "predictions/reliability")
    page.open("images", picture="all-images")
    for tag, run in itertools.product(tags, RUNS):
        assert page.loaded_image(page.card("tf-image-loader", tag, run))


def test_images_tab_shows_grids_and_boxes(page):
    page.open("images", tags="learnt|hardest", runs="healthy")
    for tag, size in (("layer1/learnt", (288, 288)), ("predictions/hardest digits", (348, 232))):
        assert page.loaded_image(page.card("tf-image-loader", tag, "healthy")) == size


def test_images_tab_shows_figures(page):
    page.open("images", tags="reliability|confusion", runs="healthy", picture="figures")
    card = page.card("tf-image-loader", "predictions/reliability", "healthy")
    assert page.loaded_image(card) == (700, 392)
    width, height = page.loaded_image(page.card("tf-image-loader", "confusion", "healthy"))
    assert min(width, height) > 10 * 20  # cells


def test_images_tab_plays_videos(page):
    page.open("images", tags="learning", picture="video")
    for run in RUNS:
        card = page.card("tf-image-loader", "layer1/learning", run)
        assert page.loaded_image(card) == (288, 288)
    (video,) = page.all("img", page.card("tf-image-loader", "layer1/learning", "healthy"))
    page.show(video)
    before = video.screenshot_as_png
    page.wait(lambda: video.screenshot_as_png != before)


def test_graphs_tab_draws_the_layers_and_what_is_in_them(page):
    page.open("graphs")
    for layer in ("layer1", "layer2", "output"):
        assert page.graph_node(layer)
    page.expand_node("layer2", to="tanh")
    for node in ("weights", "biases", "product", "sum", "tanh"):
        assert page.graph_node(node)
    page.click("paper-button", "Fit to screen")
    page.wait_until_still(page.graph_node("tanh"))


def test_audio_tab_has_every_sound_and_plays_to_the_end(page):
    page.open("audio")
    for run in RUNS:
        card = page.card("tf-audio-loader", "loss/as a tone", run)
        (audio,) = page.wait(page.all, "audio", card)
        page.wait(audio.get_property, "duration")
        assert audio.get_property("duration") == pytest.approx(STEPS / 100)
    page.driver.execute_script("arguments[0].play()", audio)
    page.wait(audio.get_property, "ended")


def test_projector_tab_shows_every_point_and_its_labels(page):
    page.open("projector")
    page.enter_frame()
    page.enter_frame()  # in the first one
    for words in (("3 runs", "hidden layer 2", "predicted"), ("Points: 450", "Dimension: 32")):
        assert page.card("vz-projector-app, vz-projector", *words)
    canvas = page.wait(page.all, "canvas")[0]
    page.wait(lambda: page.colours(canvas) > 100)


def test_text_tab_shows_markdown_and_the_numbers_of_the_table(page):
    page.open("text", runs="healthy")
    card = page.card("tf-text-loader", "about", "healthy")
    assert [page.text(title) for title in page.all("h3", card)] == ["healthy"]
    card = page.card("tf-text-loader", "predictions/by digit", "healthy")
    cells = [page.text(cell) for cell in page.wait(page.all, "td", card)]
    assert cells[::5] == list(map(str, range(10)))
    assert sum(map(int, cells[1::5])) == 450


def test_pr_curves_tab_draws_a_curve_for_every_run(page):
    page.open("pr_curves")
    for tag in ("digit 0", "all digits"):
        card = page.card("tf-pr-curve-card", f"precision and recall/{tag}", *RUNS)
        page.wait(lambda card=card: sum(length > 9 for length in page.lines(card)) == len(RUNS))
        assert page.text(card).count(f"step {STEPS}") == len(RUNS)
    page.show(card)


def test_hparams_tab_shows_hyperparameters_and_metrics(page, logged):
    page.open("hparams")
    table = page.card("tf-hparams-table-view", *RUNS)
    cells = [page.text(cell) for cell in page.all("vaadin-grid-cell-content", table)]
    width = cells.index(RUNS[0])
    names, rows = cells[:width], [cells[i : i + width] for i in range(width, len(cells), width)]
    for run, row in zip(RUNS, rows, strict=True):
        shown = dict(zip(names, row, strict=True))
        assert shown["Trial ID"] == run
        assert float(shown["epochs"]) == EPOCHS
        assert float(shown["images"]) == (60 if run == "overfit" else 1347)
        assert float(shown["learning rate"]) == (0.002 if run == "too-slow" else 0.2)
        for tag in ("best/accuracy/validation", "best/loss/validation"):
            last = logged[run].Scalars(tag)[-1].value
            assert float(shown[tag]) == pytest.approx(last, rel=1e-4)


def test_mesh_tab_draws_the_landscape(page):
    page.open("mesh", runs="healthy")
    card = page.card("tf-mesh-loader", f"step {STEPS}")
    (canvas,) = page.wait(page.all, "canvas", card)
    page.show(canvas)
    page.wait(lambda: page.colours(canvas) > 200)
