"""Shared by the tests of TensorBoard's tabs: the server, the browser, and its page."""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")

needs_chromium = pytest.mark.skipif(
    not CHROMIUM or not CHROMEDRIVER,
    reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
)

pytest.importorskip("selenium", reason="drives the browser: pip install selenium")
pytest.importorskip("PIL.Image", reason="reads canvases: pip install Pillow")

from PIL import Image  # noqa: E402 - only if installed
from selenium import webdriver  # noqa: E402 - only if installed
from selenium.common import exceptions  # noqa: E402 - only if installed
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402 - only if installed

TIMEOUT = 60
"""Seconds to wait for a condition, with a margin for loaded machines."""

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
    """Return a text without spaces, because a tag may be split across elements."""
    return "".join(text.split())


class Page:
    """A tab of TensorBoard."""

    def __init__(self, driver, address):
        self.driver = driver
        self._address = address
        self.picture = ""

    def open(self, tab, *, tags="", runs="", picture="", outliers=False):
        """Open a tab, showing only the tags and runs that match regular expressions.

        By default, the picture is named after the tab. Charts of the Scalars tab leave out
        outliers, unless ``outliers`` is true.
        """
        self.picture = picture or tab
        if outliers:
            self.driver.get(f"{self._address}data/environment")  # of the same origin
            self.driver.execute_script("localStorage.setItem('_ignoreYOutliers', 'false')")
        self.driver.get("about:blank")  # else a new fragment would not load anything
        chosen = {"tagFilter": tags, "regexInput": runs}
        fragment = "&".join([tab, *(f"{key}={value}" for key, value in chosen.items() if value)])
        self.driver.get(f"{self._address}#{fragment}")

    def enter_frame(self):
        self.driver.switch_to.frame(self.wait(self.all, "iframe")[0])

    def all(self, selector, within=None):
        """Return all visible elements that match, including those in shadow trees."""
        return self.driver.execute_script(PIERCE, selector, within)

    def text(self, element):
        """Return the text of an element, including the shadow trees below it."""
        return self.driver.execute_script(TEXT, element)

    def wait(self, condition, *args, every=0.2):
        """Wait until the condition is true; return its result."""
        passing = (
            exceptions.ElementClickInterceptedException,  # by an element about to disappear
            exceptions.ElementNotInteractableException,
            exceptions.JavascriptException,
            exceptions.StaleElementReferenceException,
            exceptions.TimeoutException,  # of one check: drawing WebGL in software is slow
        )
        wait = WebDriverWait(self.driver, TIMEOUT, every, passing)
        return wait.until(lambda _: condition(*args))

    def card(self, selector, *words):
        """Return the first matching element that contains all the words."""

        def find():
            for element in self.all(selector):
                text = squeezed(self.text(element))
                if all(squeezed(word) in text for word in words):
                    self.driver.execute_script("arguments[0].scrollIntoViewIfNeeded()", element)
                    return element
            return None

        return self.wait(find)

    def show(self, element):
        """Scroll to an element for the picture."""
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)

    def click(self, selector, *words):
        card = self.card(selector, *words)
        self.driver.execute_script("arguments[0].click()", card)

    def wait_until_still(self, element):
        places = []
        self.wait(lambda: places.append(element.rect) or places[-2:] == [element.rect] * 2)

    def graph_node(self, name):
        """Return the drawn graph node with this name."""

        return self.wait(self.graph_nodes, name)[0]

    def graph_nodes(self, name):
        return [node for node in self.all("g.node") if self.text(node).split()[:1] == [name]]

    def expand_node(self, name, to):
        """Click until a node expands, because a node still being drawn ignores clicks."""

        def expand():
            if not self.graph_nodes(to):
                self.driver.execute_script(DOUBLE_CLICK, self.graph_node(name))
            return self.graph_nodes(to)

        self.wait(expand, every=3)

    def lines(self, card, selector="svg.content path"):
        """Return the number of points of each line in a card, counted in its SVG path."""
        paths = [path.get_attribute("d") or "" for path in self.all(selector, card)]
        return [len(re.findall("[MLHVCA]", path)) for path in paths]

    def colours(self, element):
        """Return the number of colours that an element shows, with or without WebGL."""
        with Image.open(io.BytesIO(element.screenshot_as_png)) as image:
            return len(image.convert("RGB").getcolors(1 << 24))

    def loaded_image(self, card):
        """Return the original width and height of the image in a card."""

        def find():
            for image in self.all("img", card):
                size = image.get_property("naturalWidth"), image.get_property("naturalHeight")
                if image.get_property("complete") and all(size):
                    return size
            return None

        return self.wait(find)


@contextlib.contextmanager
def tensorboard(logdir, is_ready):
    """Serve a folder; yield the address once ``is_ready(address)`` is true."""
    command = [sys.executable, "-m", "tensorboard.main", "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(
        [*command, "--logdir", logdir.name], cwd=logdir.parent, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            said = iter(server.stderr.readline, "")
            served = (re.search(r"http://\S+/", line) for line in said)
            address = next((found[0] for found in served if found), None)
            assert address, "TensorBoard has ended"
            WebDriverWait(address, TIMEOUT, 0.2).until(is_ready)
            yield address
        finally:
            server.terminate()
            server.communicate(timeout=TIMEOUT)


@contextlib.contextmanager
def chromium():
    """Start the browser with a fixed window size."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in (
        "headless=new",
        "no-sandbox",  # it does not work for root in a container
        "disable-dev-shm-usage",
        "use-angle=swiftshader",  # WebGL without a GPU
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


def artifacts_folder(tmp_path_factory):
    """Return the folder in which pictures are saved."""
    folder = os.environ.get("SM_TBLOG_ARTIFACTS")
    path = Path(folder) if folder else tmp_path_factory.mktemp("tabs")
    path.mkdir(parents=True, exist_ok=True)
    return path
