"""TensorBoard draws system metrics beside the training's curves: looked at in a real browser."""

import json
import subprocess
import sys
import urllib.request

import pytest
from browser import Page, artifacts_folder, chromium, needs_chromium, tensorboard

pytest.importorskip("psutil", reason="needs psutil: pip install 'sm-tblog[system]'")

pytestmark = [pytest.mark.slow, needs_chromium]

TRAINING = """
import sys, time
import numpy as np
from sm_tblog import SystemMetrics, Writer

STEPS = 240

def wait_for_data(step):
    time.sleep(0.06 if 80 <= step < 160 else 0)  # a slow disk, in the second third

held, weights = [], np.ones((300, 300)) / 300
with Writer(sys.argv[1]) as writer:
    with SystemMetrics(writer, every=0.1, step=lambda: writer.step):
        for writer.step in range(STEPS):
            wait_for_data(writer.step)
            ends = time.process_time() + 0.02
            while time.process_time() < ends:
                weights = weights @ weights / 1.0001
            if writer.step >= 160:
                held.append(np.ones(500_000))  # a leak, in the last third
            writer.add_scalar("loss", 1 / (1 + writer.step / 50))
"""
TAGS = ("system/cpu/percent", "system/process/cpu_cores", "system/process/memory_gib")


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("system") / "runs"
    folder.mkdir()
    command = [sys.executable, "-c", TRAINING, str(folder / "training")]
    subprocess.run(command, timeout=120, check=True)
    return folder


@pytest.fixture(scope="module")
def page(logdir, tmp_path_factory):
    def is_ready(address):
        with urllib.request.urlopen(f"{address}data/plugin/scalars/tags") as answer:
            return set(TAGS) < set(json.load(answer).get("training", {}))

    with tensorboard(logdir, is_ready) as address, chromium() as driver:
        page = Page(driver, address)
        yield page
        picture = artifacts_folder(tmp_path_factory) / f"{page.picture}.png"
        driver.save_screenshot(str(picture))
        print(f"picture of the tab: {picture}")  # noqa: T201 - shown with a failure


def test_the_curves_stand_beside_the_loss(page, logdir, read_scalars):
    page.open("scalars", tags="loss|process/(cpu|mem)|cpu/percent", picture="system")
    for tag in ("loss", *TAGS):
        card = page.card("tf-scalar-card", tag)
        page.wait(lambda card=card: max(page.lines(card), default=0) > 20)
    curves = read_scalars(logdir)["training"]
    memory = dict(curves["system/process/memory_gib"])
    assert max(memory) == 239
    assert memory[239] > 0.25 + min(memory.values())  # 80 arrays of 4 MB are 0.3 GiB
    page.show(page.card("tf-scalar-card", "loss"))
