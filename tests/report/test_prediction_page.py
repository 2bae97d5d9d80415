"""The pages of a prediction: what stands on them, and that they work in a browser without a network."""

import itertools
import json
import os
import re
import shutil
import subprocess

import pytest

from lofi.report.prediction_page import (
    clock_text,
    page_url,
    render_prediction_index,
    render_prediction_page,
    stamp_of,
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DETECTIONS = [
    {"segment": [2.0, 3.5], "label": "jump", "score": 0.8},
    {"segment": [2.5, 3.0], "label": "jump", "score": 0.4},
    {"segment": [0.5, 1.0], "label": "run & hide", "score": 0.2},
    {"segment": [1.0, 2.0], "label": "run & hide", "score": 0.05},
]


def content(**changes):
    return {
        "video": "clip",
        "file": "/videos/clip.mp4",
        "duration_sec": 4.0,
        "fps": 8.0,
        "height": 20,
        "width": 30,
        "num_windows": 1,
        "num_snippets": 8,
        "feature_bytes": 2048,
        "seconds": 1.5,
        "detections": DETECTIONS,
        "num_found": 9,
        "run": "lofi",
        "classes": ["jump", "run & hide", "throw"],
        "sources": ["../clip 1#.mp4", "file:///videos/clip%201%23.mp4"],
        "truth": None,
        "pictures": ["data:image/jpeg;base64,AAAA"],
        "problem": None,
        **changes,
    }


def segments_of(page, strip):
    """The attributes of every segment of the strips of one kind, in the page's order."""
    strips = re.findall(rf'<div class="strip {strip}".*?</div>', page, re.S)
    return [
        dict(re.findall(r'([\w-]+)="([^"]*)"', button))
        for each in strips
        for button in re.findall(r"<button[^>]*>", each)
    ]


def test_detections_lie_in_their_classes_lane_and_are_paler_where_they_score_less():
    page = render_prediction_page(content(), stamp="x")
    assert re.findall(r'class="lane-name">.*?</span>([^<]*)', page) == ["jump", "run &amp; hide"]
    found = {segment["data-index"]: segment["style"] for segment in segments_of(page, "found")}
    assert "left:50.0000%;width:37.5000%;opacity:1.000" in found["0"]
    assert "left:62.5000%;width:12.5000%;opacity:0.575" in found["1"]
    assert "--row: 0" in found["0"]
    assert "--row: 1" in found["1"]  # they overlap


def test_what_scores_little_is_hidden_at_first_and_said_to_be():
    page = render_prediction_page(content(), stamp="x")
    assert '<span id="num_shown">3</span> of 4 shown' in page
    assert len(re.findall(r"<li hidden", page)) == 1
    assert "4 detections (of 9 found)" in page


def test_ground_truth_is_clipped_to_the_timeline_and_absent_where_there_is_none():
    truth = [
        {"start_sec": -1.0, "end_sec": 1.0, "label": "throw"},
        {"start_sec": 3.0, "end_sec": 9.0, "label": "jump"},
    ]
    with_truth = render_prediction_page(content(truth=truth), stamp="x")
    styles = [segment["style"] for segment in segments_of(with_truth, "truth")]
    assert styles == ["left:75.0000%;width:25.0000%", "left:0.0000%;width:25.0000%"]
    assert ">throw</p>" in with_truth
    without = render_prediction_page(content(), stamp="x")
    assert segments_of(without, "truth") == []
    assert "no ground truth was given" in without


def test_names_cannot_break_out_of_the_page():
    evil = '"><script>alert(1)</script>'
    detections = [{"segment": [0.0, 1.0], "label": evil, "score": 0.5}]
    values = {"video": evil, "file": evil, "run": evil, "sources": [evil, "file:///x"], "problem": evil}
    page = render_prediction_page(content(**values, detections=detections, pictures=[]), stamp="x")
    record = {**content(**values), "detections": detections}
    index = render_prediction_index(
        [record], failures={evil: evil}, run=evil, classes=[evil], with_page={evil}
    )
    assert page.count("<script>") == 1  # the page's own
    assert "<script>" not in index
    assert "alert(1)" in page
    assert page_url("a/b #1?") == "pages/a%2Fb%20%231%3F.html"


def test_a_page_names_the_video_by_both_of_its_places_and_nothing_of_the_network():
    page = render_prediction_page(content(), stamp="x")
    assert re.findall(r'<source src="([^"]*)">', page) == [
        "../clip%201%23.mp4",
        "file:///videos/clip%201%23.mp4",
    ]
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", page)
    assert "url(" not in page


def test_a_page_without_detections_or_pictures_says_so():
    page = render_prediction_page(content(detections=[], pictures=[], num_found=0), stamp="x")
    assert "Nothing was detected" in page
    page = render_prediction_page(content(pictures=[], problem="the data are damaged."), stamp="x")
    assert "No pictures: the data are damaged." in page


def test_the_index_links_pages_and_lists_failures():
    records = [content(video="a"), content(video="b", detections=[])]
    index = render_prediction_index(
        records, failures={"c": "no frames."}, run="lofi", classes=["jump"], with_page={"a"}
    )
    assert '<a href="pages/a.html">a</a>' in index
    assert "pages/b.html" not in index
    assert "no frames." in index


def test_the_stamp_is_found_again(tmp_path):
    page = tmp_path / "page.html"
    assert stamp_of(page) is None
    page.write_text(render_prediction_page(content(), stamp="abc123"))
    assert stamp_of(page) == "abc123"


@pytest.mark.parametrize(
    ("seconds", "tenths", "text"),
    [(0, False, "0:00"), (59.96, True, "1:00.0"), (3723.25, False, "1:02:03"), (7.54, True, "0:07.5")],
)
def test_times_read_as_on_a_player(seconds, tenths, text):
    assert clock_text(seconds, tenths=tenths) == text


class Browser:
    """Chromium, driven by its own protocol over two pipes."""

    def __init__(self, profile):
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        flags = f"--headless=new --no-sandbox --disable-gpu --remote-debugging-pipe --user-data-dir={profile}"
        # Chromium reads its descriptor 3 and writes its descriptor 4.
        command = f"exec {CHROMIUM} {flags} about:blank 3<&{theirs_in} 4>&{theirs_out} 2>/dev/null"
        self._process = subprocess.Popen(["bash", "-c", command], pass_fds=(theirs_in, theirs_out))
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out = os.fdopen(ours_in, "rb"), os.fdopen(ours_out, "wb")
        self._ids = itertools.count(1)
        self._session = {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = {"sessionId": session}

    def call(self, method, **params):
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params, **self._session}
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while True:
            answer = json.loads(self._next_message())
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next_message(self):
        text = b""
        while not text.endswith(b"\0"):
            byte = self._in.read(1)
            if not byte:
                pytest.skip(f"{CHROMIUM} does not run here")
            text += byte
        return text[:-1]

    def run(self, script):
        """The value of an expression in the page; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, condition):
        script = f"""new Promise((done) => {{ const end = Date.now() + 15000;
            const look = () => ({condition}) ? done(true) : Date.now() > end ? done(false) : setTimeout(look, 50);
            look(); }})"""
        assert self.run(script), condition

    def close(self):
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no chromium here")
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


def open_page(browser, path, **changes):
    path.write_text(render_prediction_page(content(**changes), stamp="x"))
    browser.call("Page.navigate", url=path.as_uri())
    browser.wait_for('document.readyState === "complete" && document.getElementById("axis")')


def click(browser, selector):
    browser.run(f"document.querySelector({selector!r}).click()")


@pytest.mark.timeout(120)
def test_in_a_browser_a_click_on_a_detection_seeks_the_video(browser, benchmark, tmp_path):
    video = next(benchmark.videos.glob("*.mp4"))
    open_page(browser, tmp_path / "page.html", sources=["missing.mp4", video.as_uri()])
    browser.wait_for("video.readyState >= 1")
    click(browser, '.segment[data-index="0"]')
    browser.wait_for("!video.seeking && Math.abs(video.currentTime - 2.0) < 0.01")
    assert browser.run("document.getElementById('head').style.left") == "50%"
    click(browser, ".cards [data-index='2']")
    browser.wait_for("!video.seeking && Math.abs(video.currentTime - 0.5) < 0.01")
    for key, time in (("n", 2.0), ("ArrowRight", 3.0), ("p", 2.5), ("Home", 0.0)):
        event = f"new KeyboardEvent('keydown', {{key: {key!r}, bubbles: true}})"
        browser.run(f"document.body.dispatchEvent({event})")
        browser.wait_for(f"!video.seeking && Math.abs(video.currentTime - {time}) < 0.01")
    assert browser.run("document.getElementById('unplayable').hidden")


@pytest.mark.timeout(120)
def test_in_a_browser_a_page_whose_video_is_gone_says_so_and_still_works(browser, tmp_path):
    open_page(browser, tmp_path / "gone.html", sources=["gone.mp4"])
    browser.wait_for("!document.getElementById('unplayable').hidden")
    click(browser, '.segment[data-index="0"]')
    assert browser.run("document.getElementById('clock').textContent") == "0:02.0"
    assert browser.run("document.getElementById('still').src").startswith("data:image/jpeg")


@pytest.mark.timeout(120)
def test_in_a_browser_the_slider_shows_what_scores_enough(browser, tmp_path):
    open_page(browser, tmp_path / "slider.html", sources=["gone.mp4"])
    shown = "[...document.querySelectorAll('.cards li')].filter((each) => each.offsetHeight > 0).length"
    assert browser.run(shown) == 3
    browser.run("least.value = 0; least.dispatchEvent(new Event('input'))")
    assert browser.run(shown) == 4
    browser.run("least.value = 0.5; least.dispatchEvent(new Event('input'))")
    assert browser.run(shown) == 1
    assert browser.run("document.querySelectorAll('.lane:not([hidden])').length") == 1
