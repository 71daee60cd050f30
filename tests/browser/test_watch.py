"""TensorBoard shows why a network does not learn: the documentation's page, in a real browser."""

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from browser import Page, artifacts_folder, chromium, needs_chromium, tensorboard

pytest.importorskip("torch")
pytest.importorskip("sklearn")

pytestmark = [pytest.mark.slow, needs_chromium]

DOCUMENT = Path(__file__).parents[2] / "docs" / "why-does-it-not-learn.md"
RUNS = ("1-sigmoid", "2-relu", "3-normalized")


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    """What the first part of the page has logged."""
    folder = tmp_path_factory.mktemp("watch")
    text = DOCUMENT.read_text(encoding="utf-8").partition("## What is logged")[0]
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    subprocess.run([sys.executable, "-c", code], cwd=folder, timeout=120, check=True)
    return folder / "runs"


@pytest.fixture(scope="module")
def opened(logdir):
    def is_ready(address):
        with urllib.request.urlopen(f"{address}data/plugin/scalars/tags") as answer:
            return {run for run, tags in json.load(answer).items() if "loss" in tags} == set(RUNS)

    with tensorboard(logdir, is_ready) as address, chromium() as driver:
        yield Page(driver, address)


@pytest.fixture
def page(opened, tmp_path_factory):
    yield opened
    picture = artifacts_folder(tmp_path_factory) / f"{opened.picture}.png"
    opened.driver.save_screenshot(str(picture))
    print(f"picture of the tab: {picture}")  # noqa: T201 - shown with a failure


def test_an_alert_names_the_layers_and_what_to_do(page):
    page.open("text", tags="Vanishing", runs="sigmoid", picture="alerts")
    card = page.card("tf-text-loader", "alerts/VanishingGradient", "1-sigmoid")
    cells = [page.text(cell) for cell in page.wait(page.all, "td", card)]
    assert cells[:2] == ["0.weight", "mean |gradient|"]
    assert float(cells[2]) < float(cells[3]) == 1e-7
    assert "The layer hardly learns" in page.text(card)


def test_the_curves_of_three_networks(page, read_scalars, logdir):
    tags = ("gradients/0.weight/abs_mean", "updates/0.weight/ratio", "rules/VanishingGradient")
    page.open("scalars", tags="^loss$|(s/0.weight/(abs_mean|ratio))|/Vanishing", picture="scalars")
    for tag in ("loss", *tags):
        card = page.card("tf-scalar-card", tag)
        page.wait(lambda card=card: max(page.lines(card), default=0) > 20)
    found = read_scalars(logdir)
    last = {run: np.mean([value for _, value in found[run]["loss"][-50:]]) for run in RUNS}
    assert last["1-sigmoid"] > 2.2
    assert last["3-normalized"] < 0.4
    page.show(page.card("tf-scalar-card", tags[0]))


def test_the_histograms_of_weights_that_stay_and_of_some_that_move(page):
    page.open("histograms", tags="^parameters/0.weight$", runs="sigm|norm", picture="histograms")
    for run in ("1-sigmoid", "3-normalized"):
        card = page.card("tf-histogram-loader", "parameters/0.weight", run)
        page.wait(lambda card=card: len(page.lines(card, "#svg path")) >= 4)
    page.show(page.card("tf-histogram-loader", "parameters/0.weight", "1-sigmoid"))
