"""What tests of TensorBoard's tabs share: the server, the browser, and what is seen in it."""

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
pytest.importorskip("PIL.Image", reason="looks at canvases: pip install Pillow")

from PIL import Image  # noqa: E402 - only where it is there
from selenium import webdriver  # noqa: E402 - only where it is there
from selenium.common import exceptions  # noqa: E402 - only where it is there
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402 - only where it is there

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

    def open(self, tab, *, tags="", runs="", picture="", outliers=False):
        """Open a tab, with the tags and runs alone that match regular expressions.

        The picture has the name of the tab if it is given none. Charts of the Scalars tab leave out
        what they take for outliers, unless these are wanted.
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
        """Return all that is visible and matches, in shadow trees too."""
        return self.driver.execute_script(PIERCE, selector, within)

    def text(self, element):
        """Return what is written in an element, and in shadow trees below it."""
        return self.driver.execute_script(TEXT, element)

    def wait(self, condition, *args, every=0.2):
        """Return what the condition returns, as soon as that is true."""
        passing = (
            exceptions.ElementClickInterceptedException,  # by what is about to leave
            exceptions.ElementNotInteractableException,
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


@contextlib.contextmanager
def tensorboard(logdir, is_ready):
    """Serve a folder; give the address once ``is_ready(address)`` is true."""
    command = [sys.executable, "-m", "tensorboard.main", "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(
        [*command, "--logdir", logdir.name], cwd=logdir.parent, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            said = iter(server.stderr.readline, "")
            served = (re.search(r"http://\S+/", line) for line in said)
            address = next((found[0] for found in served if found), None)
            assert address, "TensorBoard has ended"
            WebDriverWait(address, PATIENCE, 0.2).until(is_ready)
            yield address
        finally:
            server.terminate()
            server.communicate(timeout=PATIENCE)


@contextlib.contextmanager
def chromium():
    """Start the browser, of one size whatever the screen."""
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


def artifacts_folder(tmp_path_factory):
    """Return where pictures are left."""
    folder = os.environ.get("SM_TBLOG_ARTIFACTS")
    path = Path(folder) if folder else tmp_path_factory.mktemp("tabs")
    path.mkdir(parents=True, exist_ok=True)
    return path
