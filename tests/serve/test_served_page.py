"""The page in a headless Chromium: pictures are given, everything is clicked, and screenshots are kept in $ICCLD_SCREENSHOTS."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iccld.serve.limits import Limits

from .browser import Chromium, find_chromium
from .conftest import Server, picture

ALPHA = "document.getElementById('mask').getContext('2d').getImageData({x}, {y}, 1, 1).data[{channel}]"
DONE = "items.length === {count} && items.every((item) => item.state === 'done' || item.state === 'failed')"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    program = find_chromium()
    if program is None:
        pytest.skip("needs a Chromium")
    with Chromium(program, tmp_path / "profile") as opened:
        yield opened


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Left half class 4, right half class 13; one of class 9; one that is damaged."""
    halves = np.full((60, 90, 3), round(255 * 4 / 18), dtype=np.uint8)
    halves[:, 45:] = round(255 * 13 / 18)
    data = io.BytesIO()
    Image.fromarray(halves).save(data, format="PNG")
    files = {"halves.png": data.getvalue(), "it's one.png": picture(9), "torn.png": picture()[:-30]}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in files]


def keep(browser: Chromium, name: str, tmp_path: Path) -> None:
    """A screenshot where the environment asks for it, else among the test's files."""
    folder = Path(os.environ.get("ICCLD_SCREENSHOTS", tmp_path))
    browser.evaluate("scrollTo(0, 0)")
    browser.screenshot(folder / f"{name}.png")
    with Image.open(folder / f"{name}.png") as shot:
        assert shot.size[0] >= 390


def texts(browser: Chromium, selector: str) -> list[str]:
    found: list[str] = browser.evaluate(f"[...document.querySelectorAll('{selector}')].map((e) => e.textContent)")
    return found


def test_the_page_does_what_it_says(started: Callable[..., Server], browser: Chromium, pictures: list[Path], tmp_path: Path) -> None:
    server = started(Limits())
    browser.show_as(1280, 900)
    browser.open(f"{server.url}/")
    browser.wait("classes.length === 19")
    keep(browser, "serve_empty", tmp_path)

    # Pictures arrive, and are segmented.
    browser.choose_files("#files", pictures)
    browser.wait(DONE.format(count=3))
    browser.wait("shown !== null")
    assert texts(browser, "#status") == ["2 segmented, 1 failed"]
    assert texts(browser, "#strip .failed span:first-of-type") == ["torn.png"]
    assert texts(browser, "#classes .class") == ["fence", "car"]
    assert texts(browser, "#classes .share") == ["50.0 %", "50.0 %"]

    # Colours are the classes', and the legend switches them.
    assert browser.evaluate(f"[0, 1, 2].map((c) => {ALPHA.format(x=10, y=10, channel='c')})") == [190, 153, 153]
    browser.click("#classes li:first-child input")
    assert browser.evaluate(f"[{ALPHA.format(x=10, y=10, channel=3)}, {ALPHA.format(x=80, y=10, channel=3)}]") == [0, 255]
    browser.click("#none")
    assert browser.evaluate(ALPHA.format(x=80, y=10, channel=3)) == 0
    browser.click("#all")
    assert browser.evaluate(ALPHA.format(x=10, y=10, channel=3)) == 255

    # The line and the opacity, by mouse and by keyboard.
    browser.click("#stage")
    browser.press("ArrowRight")
    assert browser.evaluate("document.activeElement.id") == "split"
    assert browser.evaluate("Number.parseFloat($('stage').style.getPropertyValue('--split'))") == pytest.approx(50.5, abs=1)
    assert "sure, at row" in texts(browser, "#readout")[0]
    browser.evaluate("$('opacity').focus()")
    browser.press("ArrowRight")
    assert browser.evaluate("Number($('mask').style.opacity)") == pytest.approx(0.66)

    # Confidence, and the next picture, by keys.
    browser.evaluate("document.activeElement.blur()")
    browser.press("c")
    assert browser.evaluate("document.querySelector('input[name=view]:checked').value") == "confidence"
    assert browser.evaluate(f"[0, 1, 2].map((c) => {ALPHA.format(x=10, y=10, channel='c')})")[0] > 128
    browser.press("c")
    browser.press("m")
    assert browser.evaluate("$('mask').hidden") is True
    browser.press("m")
    browser.press("ArrowRight")
    browser.wait("current === 1 && document.querySelectorAll('#classes li').length === 1")
    curl = f"curl --data-binary @'it'\\''s one.png' '{server.url}/segment' --output 'it'\\''s one_mask.png'"
    assert texts(browser, "#curl") == [curl]
    browser.click("#strip li:first-child button")
    browser.wait("current === 0 && document.querySelectorAll('#classes li').length === 2")

    # The zip, read by another program.
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "taken"), eventsEnabled=True)
    browser.click("#save-all")
    browser.wait("$('status').textContent === '2 pictures packed'")
    taken = tmp_path / "taken" / "masks.zip"
    for _ in range(600):
        if taken.exists():
            break
        browser.evaluate("new Promise((resolve) => setTimeout(resolve, 50))")
    with zipfile.ZipFile(taken) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == sorted(
            ["shares.csv", "masks/halves.png", "overlays/halves.jpg", "masks/it's one.png", "overlays/it's one.jpg"]
        )
        mask = Image.open(io.BytesIO(archive.read("masks/halves.png")))
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask), np.repeat([[4] * 45 + [13] * 45], 60, axis=0))
        assert mask.getpalette()[3 * 13 : 3 * 14] == [0, 0, 142]
        assert Image.open(io.BytesIO(archive.read("overlays/halves.jpg"))).size == (90, 60)
        assert archive.read("shares.csv").decode().splitlines()[1].startswith("halves.png,")

    # Everything is reached by Tab, nothing is wider than the window, and nothing complained but of the torn picture.
    hands = "[...document.querySelectorAll('button, input:not([hidden]), summary')]"
    assert browser.evaluate(f"{hands}.filter((e) => !(e.labels?.length || e.ariaLabel || e.textContent.trim())).length") == 0
    keep(browser, "serve_desktop", tmp_path)
    browser.show_as(390, 844, dark=True, phone=True)
    assert browser.evaluate("document.documentElement.scrollWidth") == 390
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 18, 20)"
    keep(browser, "serve_phone_dark", tmp_path)
    assert [text for text in browser.complaints() if "status of 422" not in text] == []
