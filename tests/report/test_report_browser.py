"""The page in headless Chromium, from a phone to a wide screen."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from spikedistill.report import find_runs, write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium (chromium, chromium-browser or google-chrome) on PATH"),
]
WIDTHS = (390, 930, 1250, 1600)
# The page itself holds no script: a page around it loads it at each width, unfolds all it folds, and measures.
AROUND = """<!doctype html><body><script>
const found = [], widths = %s;
function measure(frame, width) {
  const page = frame.contentDocument, root = page.documentElement;
  page.querySelectorAll("details").forEach(part => part.open = true);
  const small = [...page.querySelectorAll("svg text")].map(text => text.getBoundingClientRect().height);
  const sections = [...page.querySelectorAll("section")].map(part => part.getBoundingClientRect().height);
  const table = page.querySelector(".wide");
  const scroll = root.scrollWidth, cut = table.scrollWidth - table.clientWidth, height = root.scrollHeight;
  found.push({width, scroll, cut, height, text: Math.min(...small), sections});
  if (found.length === widths.length) { document.title = JSON.stringify(found); console.info("measured"); }
}
for (const width of widths) {
  const frame = document.createElement("iframe");
  frame.width = width; frame.height = 900; frame.src = "report.html";
  frame.onload = () => measure(frame, width);
  document.body.append(frame);
}
</script></body>"""


def chromium(*options: str) -> subprocess.CompletedProcess[str]:
    assert BROWSER is not None
    fixed = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr", "--v=0"]
    return subprocess.run([BROWSER, *fixed, *options], capture_output=True, text=True, timeout=120, check=True)


@pytest.fixture(scope="module")
def page(tmp_path_factory, demo_runs) -> Path:
    root = tmp_path_factory.mktemp("browser")
    return write_report(find_runs(demo_runs(root / "runs")), root / "report.html")


def test_the_page_fits_a_phone_and_a_wide_screen_without_a_word_in_the_console(page):
    around = page.with_name("around.html")
    around.write_text(AROUND % list(WIDTHS), encoding="utf-8")
    done = chromium("--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom", around.as_uri())
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title, done.stderr
    measured = {entry["width"]: entry for entry in json.loads(title[1])}
    for width in WIDTHS:
        assert measured[width]["scroll"] == width
        assert measured[width]["cut"] == 0
        assert measured[width]["height"] > 2000
        assert min(measured[width]["sections"]) > 60
        assert measured[width]["text"] >= 8
    messages = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert len(messages) == 1 and "measured" in messages[0], messages


def test_the_page_shows_something_in_light_and_in_dark(page):
    from PIL import Image

    frame = '<iframe src="report.html" style="border: 0; width: 700px; height: 1000px; color-scheme: {}"></iframe>'
    themes = page.with_name("themes.html")
    frames = frame.format("light") + frame.format("dark")
    themes.write_text(f'<!doctype html><body style="margin: 0; display: flex">{frames}</body>', encoding="utf-8")
    shot = page.with_name("themes.png")
    chromium("--allow-file-access-from-files", "--window-size=1400,1000", f"--screenshot={shot}", themes.as_uri())
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("RGB")).astype(np.int32)
    light, dark = pixels[:, :700], pixels[:, 700:1400]
    for half in (light, dark):
        colours, counts = np.unique(half @ [65536, 256, 1], return_counts=True)
        assert len(colours) > 100
        assert 0.5 < counts.max() / counts.sum() < 0.99
    assert light.mean() > 200 and dark.mean() < 60
