"""Every tab of TensorBoard shows what the demo logs: looked at in a real browser.

The demo is run once, TensorBoard is started on its logs with its default loader, and headless
Chromium opens one tab a test. A test waits until the tab holds what it looks for, in whatever
shadow tree or frame. However it ends, a picture of the tab is left in the folder that
``SM_TBLOG_ARTIFACTS`` names, or else in one of pytest's, which a failure prints.
"""

import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not CHROMIUM or not CHROMEDRIVER,
        reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
    ),
]

pytest.importorskip("selenium", reason="drives the browser: pip install selenium")
pytest.importorskip("PIL.Image", reason="looks at canvases: pip install Pillow")

from PIL import Image  # noqa: E402 - only where it is there
from selenium import webdriver  # noqa: E402 - only where it is there
from selenium.common import exceptions  # noqa: E402 - only where it is there
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402 - only where it is there

RUNS = ("healthy", "overfit", "too-slow")
EPOCHS = 20
STEPS = EPOCHS * (1347 // 64)
PATIENCE = 60
"""Seconds in which something must have come: what is late on a loaded machine is not a fault."""

PIERCE = """
const visit = (root, found) => {
  for (const element of root.querySelectorAll("*")) {
    if (element.matches(arguments[0]) && element.getClientRects().length) found.push(element);
    if (element.shadowRoot) visit(element.shadowRoot, found);
  }
  return found;
};
const start = arguments[1] || document;
return visit(start, start.shadowRoot ? visit(start.shadowRoot, []) : []);
"""
TEXT = """
const text = (node) => {
  if (node.nodeType === Node.TEXT_NODE) return node.textContent;
  if (node.nodeType !== Node.ELEMENT_NODE || /^(STYLE|SCRIPT)$/.test(node.tagName)) return "";
  const children = [...(node.shadowRoot ? node.shadowRoot.childNodes : []), ...node.childNodes];
  return children.map(text).join(" ");
};
return text(arguments[0]).replace(/\\s+/g, " ").trim();
"""
DOUBLE_CLICK = """
const shape = arguments[0].querySelector(".nodeshape > *");
shape.dispatchEvent(new MouseEvent("dblclick", {bubbles: true}));
"""


def squeezed(text):
    """Return a text without spaces: a tag may be written in several elements."""
    return "".join(text.split())


class Page:
    """A tab of TensorBoard."""

    def __init__(self, driver, address):
        self.driver = driver
        self._address = address
        self.picture = ""

    def open(self, tab, *, tags="", runs="", picture=""):
        """Open a tab, with the tags and runs alone that match regular expressions.

        The picture has the name of the tab if it is given none.
        """
        self.picture = picture or tab
        self.driver.get("about:blank")  # else a new fragment would not load anything
        chosen = {"tagFilter": tags, "regexInput": runs}
        fragment = "&".join([tab, *(f"{key}={value}" for key, value in chosen.items() if value)])
        self.driver.get(f"{self._address}#{fragment}")

    def enter_frame(self):
        self.driver.switch_to.frame(self.wait(self.all, "iframe")[0])

    def all(self, selector, within=None):
        """Return all that is visible and matches, in shadow trees too."""
        return self.driver.execute_script(PIERCE, selector, within)

    def text(self, element):
        """Return what is written in an element, and in shadow trees below it."""
        return self.driver.execute_script(TEXT, element)

    def wait(self, condition, *args, every=0.2):
        """Return what the condition returns, as soon as that is true."""
        passing = (
            exceptions.JavascriptException,
            exceptions.StaleElementReferenceException,
            exceptions.TimeoutException,  # of one look: drawing WebGL in software takes its time
        )
        wait = WebDriverWait(self.driver, PATIENCE, every, passing)
        return wait.until(lambda _: condition(*args))

    def card(self, selector, *words):
        """Return the first element that matches and in which all the words stand."""

        def find():
            for element in self.all(selector):
                text = squeezed(self.text(element))
                if all(squeezed(word) in text for word in words):
                    self.driver.execute_script("arguments[0].scrollIntoViewIfNeeded()", element)
                    return element
            return None

        return self.wait(find)

    def show(self, element):
        """Scroll to an element, for the picture."""
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)

    def click(self, selector, *words):
        card = self.card(selector, *words)
        self.driver.execute_script("arguments[0].click()", card)

    def wait_until_still(self, element):
        places = []
        self.wait(lambda: places.append(element.rect) or places[-2:] == [element.rect] * 2)

    def graph_node(self, name):
        """Return the drawn node of a graph with this name."""

        return self.wait(self.graph_nodes, name)[0]

    def graph_nodes(self, name):
        return [node for node in self.all("g.node") if self.text(node).split()[:1] == [name]]

    def expand_node(self, name, to):
        """Click until a node opens: one that is still being drawn does not notice."""

        def expand():
            if not self.graph_nodes(to):
                self.driver.execute_script(DOUBLE_CLICK, self.graph_node(name))
            return self.graph_nodes(to)

        self.wait(expand, every=3)

    def lines(self, card, selector="svg.content path"):
        """Return how many points each line that a card draws has, as far as a path tells."""
        paths = [path.get_attribute("d") or "" for path in self.all(selector, card)]
        return [len(re.findall("[MLHVCA]", path)) for path in paths]

    def colours(self, element):
        """Return how many colours an element shows, be it drawn by WebGL or not."""
        with Image.open(io.BytesIO(element.screenshot_as_png)) as image:
            return len(image.convert("RGB").getcolors(1 << 24))

    def loaded_image(self, card):
        """Return width and height of the image in a card, as it was logged."""

        def find():
            for image in self.all("img", card):
                size = image.get_property("naturalWidth"), image.get_property("naturalHeight")
                if image.get_property("complete") and all(size):
                    return size
            return None

        return self.wait(find)


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
    command = [sys.executable, "-m", "tensorboard.main", "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(
        [*command, "--logdir", logdir.name], cwd=logdir.parent, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            said = iter(server.stderr.readline, "")
            served = (re.search(r"http://\S+/", line) for line in said)
            address = next((found[0] for found in served if found), None)
            assert address, "TensorBoard has ended"
            # The page asks for what there is once, and then not again for a while.
            wait = WebDriverWait(address, PATIENCE, 0.2)
            wait.until(lambda _: set(RUNS) <= set(read_whole(address)))
            yield address
        finally:
            server.terminate()
            server.communicate(timeout=PATIENCE)


def read_whole(address):
    """Return the runs of which TensorBoard has read the last that is logged."""
    with urllib.request.urlopen(f"{address}data/plugin/text/tags") as answer:
        return [run for run, tags in json.load(answer).items() if "predictions/by digit" in tags]


@pytest.fixture(scope="module")
def driver():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in (
        "headless=new",
        "no-sandbox",  # of no use to root, in a container
        "disable-dev-shm-usage",
        "use-angle=swiftshader",  # WebGL without a graphics card
        "enable-unsafe-swiftshader",
        "autoplay-policy=no-user-gesture-required",
        "mute-audio",
        "hide-scrollbars",
        "window-size=1280,800",
        "force-device-scale-factor=1",
    ):
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(CHROMEDRIVER)) as driver:
        size = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield driver


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    folder = os.environ.get("SM_TBLOG_ARTIFACTS")
    path = Path(folder) if folder else tmp_path_factory.mktemp("tabs")
    path.mkdir(parents=True, exist_ok=True)
    return path


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
    for words in (("3 runs", "hidden layer 2", "taken for"), ("Points: 450", "Dimension: 32")):
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
