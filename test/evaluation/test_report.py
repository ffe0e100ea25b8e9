"""The report in a real browser: no console error, the map has its points, hovering shows a query."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geowarp_ros.evaluation.cards import choose
from geowarp_ros.evaluation.compare import Finished, compare, write_comparison
from geowarp_ros.evaluation.figures import _arrows
from geowarp_ros.evaluation.judging import figures, judge
from geowarp_ros.evaluation.report import write_report
from test.evaluation import runs
from test.evaluation.test_compare import finished

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)

# in the page before anything else: nothing that goes wrong is missed
LISTENERS = """<script>
window.problems = [];
window.addEventListener("error", (event) => window.problems.push(String(event.message || event.target.src)), true);
window.addEventListener("unhandledrejection", (event) => window.problems.push(String(event.reason)));
for (const level of ["error", "warn"]) {
  const kept = console[level];
  console[level] = (...parts) => { window.problems.push(parts.join(" ")); kept(...parts); };
}
</script>"""

# after everything: count what is drawn, move the mouse onto a point as a reader does, and note what shows
PROBE = """<script>
async function probe() {
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const found = { drawn: {}, images: document.images.length };
  found.outlines = document.querySelectorAll(".card polygon").length;
  for (const plot of document.querySelectorAll(".plot")) {
    found.drawn[plot.id] = plot.querySelectorAll(".point, .js-line, path.js-line").length;
  }
  const map = document.getElementById("map");
  const points = map ? [...map.querySelectorAll(".scatterlayer .trace .point")] : [];
  const trace = map ? map.data.findIndex((one) => one.name === "fix") : -1;
  if (trace >= 0 && map.data[trace].x.length) {
    map.scrollIntoView();
    const row = map.data[trace].x.length - 1;
    const axes = map._fullLayout;
    const box = map.getBoundingClientRect();
    const at = {
      clientX: box.left + axes.xaxis._offset + axes.xaxis.c2p(map.data[trace].x[row]),
      clientY: box.top + axes.yaxis._offset + axes.yaxis.c2p(map.data[trace].y[row]),
      bubbles: true, view: window,
    };
    const layer = map.querySelector(".nsewdrag");
    for (const kind of ["mouseover", "mousemove"]) layer.dispatchEvent(new MouseEvent(kind, at));
    await wait(400);
    found.hover = map.querySelector(".hoverlayer").textContent;
    found.shown = document.getElementById("shown").textContent;
    found.pictures = document.querySelectorAll("#shown img[src^='data:image/jpeg']").length;
  }
  found.points = points.length;
  found.fetched = performance.getEntriesByType("resource").map((one) => one.name);
  found.fetched = found.fetched.filter((name) => !name.startsWith("data:"));
  found.problems = window.problems;
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
}
window.addEventListener("load", () => setTimeout(probe, 100));
</script>"""


def look_at(page: Path, folder: Path) -> dict[str, Any]:
    """Open a page in headless Chromium; returns what the probe found."""
    if CHROMIUM is None:
        # only a developer's machine may lack it: where CI runs, .ci/system-packages has installed it
        assert not os.environ.get("CI"), "no Chromium in CI: .ci/system-packages should have installed it"
        pytest.skip("neither chromium nor google-chrome here; on Debian 'make browser' installs it")
    text = page.read_text().replace("<head>", "<head>" + LISTENERS, 1).replace("</body>", PROBE + "</body>", 1)
    probed = folder / "probed.html"
    probed.write_text(text)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += [f"--user-data-dir={folder / 'profile'}", "--window-size=1280,1400", "--enable-logging=stderr"]
    done = subprocess.run(
        [CHROMIUM, *flags, "--virtual-time-budget=5000", "--dump-dom", probed.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, f"the page's script did not come to its end: {done.stderr[-2000:]}"
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    return {**json.loads(html.unescape(found[1])), "console": console}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("report")
    run = runs.run(notes=("the bag has a broken </script> end",))
    gallery = np.array([[5.0 * row, 1.0] for row in range(9)])
    write_report(run, figures(run), folder / "report.html", gallery, lambda index: runs.picture(100 + index))
    return look_at(folder / "report.html", folder)


def test_no_error_and_nothing_fetched(seen: dict[str, Any]) -> None:
    assert seen["problems"] == []
    assert seen["console"] == []
    assert seen["fetched"] == []


def test_the_map_has_its_points(seen: dict[str, Any]) -> None:
    # nine of the gallery, five fixes, one cross
    assert seen["points"] == 9 + 5 + 1
    assert set(seen["drawn"]) == {"map", "cdf", "time", "tradeoff", "ellipses", "stanford", "latency"}
    assert all(seen["drawn"].values())


def test_hovering_shows_the_query(seen: dict[str, Any]) -> None:
    for text in (seen["hover"], seen["shown"]):
        assert "drive/005.jpg" in text  # the last fix
        assert "8 m" in text
        assert "gallery/5.jpg" in text
    assert seen["pictures"] == 2  # query and candidate


def test_the_cards_show_query_candidate_and_both_warped(seen: dict[str, Any]) -> None:
    assert seen["images"] == 6 * 4 + 2  # and the worst beside the map
    assert seen["outlines"] == 6 * 2


def test_a_run_without_any_fix_still_opens(tmp_path: Path) -> None:
    run = runs.run(lost=range(6))
    write_report(run, figures(run), tmp_path / "report.html")
    assert "there is no fix at all" in (tmp_path / "report.html").read_text()
    seen = look_at(tmp_path / "report.html", tmp_path)
    assert (seen["problems"], seen["console"], seen["points"]) == ([], [], 6)


def test_the_comparison_opens(tmp_path: Path) -> None:
    a, b = finished(tmp_path / "a", runs.run()), finished(tmp_path / "b", runs.run(lost=(0, 1)))
    assert isinstance(a, Finished)
    write_comparison(a, b, compare(a, b), tmp_path / "compare.html")
    seen = look_at(tmp_path / "compare.html", tmp_path)
    assert (seen["problems"], seen["console"]) == ([], [])
    assert set(seen["drawn"]) == {"cdf", "tradeoff"} and all(seen["drawn"].values())


def test_cards_are_chosen_by_error_and_by_confidence() -> None:
    # errors 1, 3, 4, 60, (2), 8; confidences .95 … .45, the no-fix has .55
    worst, doubtful, good = choose(judge(runs.run()), 25.0)
    assert worst == [3]
    assert doubtful[:2] == [4, 5]  # the no-fix itself, then .45
    assert not set(good) & {*worst, *doubtful}


def test_without_a_false_fix_the_worst_are_the_farthest_right_ones() -> None:
    worst, _, _ = choose(judge(runs.run((1.0, 3.0, 2.0), lost=())), 25.0)
    assert worst == [1, 2, 0]


def test_arrows_of_answers_and_truths_are_drawn_and_the_methods_tabled(tmp_path: Path) -> None:
    run = runs.headed_run()
    write_report(run, figures(run), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '"name":"heading"' in page and '"name":"true heading"' in page
    assert "<h2>By method</h2>" in page and "median heading error" in page
    plain = runs.run()
    write_report(plain, figures(plain), tmp_path / "plain.html")
    without = (tmp_path / "plain.html").read_text(encoding="utf-8")
    assert '"name":"heading"' not in without and "heading error</span>" not in without


def test_an_arrow_by_hand() -> None:
    # 4 m towards 90°: east; the barbs lie behind the tip, left (north) and right of the shaft
    points = _arrows(np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([90.0, np.nan]), 4.0)
    assert points.shape == (6, 2)
    assert points[:2].tolist() == [[1.0, 2.0], pytest.approx([5.0, 2.0])]
    assert points[2][0] < 5.0 and points[2][1] > 2.0 > points[4][1] and np.isnan(points[5]).all()
