"""`adubench report` as a user runs it, and its page in a real browser where one is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from adubench.evaluators.result import save_results
from tests.conftest import assert_one_sentence
from tests.evaluators.results_for_comparison import make_result

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FAST = ("--resamples", "200")


@pytest.fixture
def files(tmp_path):
    for i, name in enumerate(("ours", "base")):
        save_results([make_result(name, i, bias=0.05 * i, regions=("all", "depth3"))], tmp_path / f"{name}.json")
    return tmp_path


@pytest.fixture
def evaluated(pairs, tmp_path, run_cli):
    """A result of real maps, which records where they lie."""
    pairs(n=4, drives=2)
    done = run_cli("eval", "pred", "--gt", "gt", "--protocol", "full-frame", "-o", "r.json", "--cache", "off")
    assert done.returncode == 0, done.stderr
    return tmp_path / "r.json"


def test_the_page_is_written_with_its_figures(files, run_cli):
    done = run_cli(
        "report", "ours.json", "base.json", "--baseline", "base", "-o", "page.html", "--figures", "figs", *FAST
    )
    assert done.returncode == 0, done.stderr
    assert "written: page.html" in done.stdout
    assert "predictions are not on disk" in done.stderr
    page = (files / "page.html").read_text(encoding="utf-8")
    assert "predictions are not on disk" in page
    assert {p.suffix for p in (files / "figs").iterdir()} == {".svg", ".pdf"}


def test_pictures_are_found_where_the_result_says(evaluated, run_cli, tmp_path):
    done = run_cli("report", evaluated, "-o", "page.html", "--frames", "2", *FAST)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count('alt="r: error of') == 2 or page.count(": error of drive_") == 2
    assert page.count("data:image/jpeg") == 2 * 4
    (tmp_path / "pred").rename(tmp_path / "moved")
    gone = run_cli("report", evaluated, "-o", "page.html", "--frames", "2", *FAST)
    assert gone.returncode == 0
    assert "predictions are not on disk" in gone.stderr
    label = json.loads(evaluated.read_text())["label"]
    there = run_cli("report", evaluated, "-o", "page.html", "--frames", "2", "--source", f"{label}=moved", *FAST)
    assert "not on disk" not in there.stderr


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        ((), 2, "nothing to report"),
        (("nowhere.json",), 1, "nowhere.json"),
        (("ours.json", "--frames", "-1"), 2, "from 0"),
        (("ours.json", "--source", "x"), 1, "does not exist"),
        (("ours.json", "base.json", "--source", "x"), 2, "NAME=PATH"),
        (("ours.json", "--source", "other=."), 2, "unknown result"),
        (("ours.json", "-o", "ours.json"), 2, "would be replaced"),
        (("ours.json", "--baseline", "nobody"), 2, "unknown baseline"),
    ],
)
def test_bad_input_is_one_sentence(files, run_cli, args, status, words):
    if words == "does not exist":
        status = 2
    assert_one_sentence(run_cli("report", *args, *FAST), status, words)


def test_a_missing_extra_is_said(files, run_cli, tmp_path):
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "jinja2.py").write_text("raise ImportError('no', name='jinja2')\n")
    done = run_cli("report", "ours.json", *FAST, env={"PYTHONPATH": str(blocked)})
    assert_one_sentence(done, 2, "adubench[report]")
    assert not (files / "report.html").exists()


def _browser():
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium is installed (Debian: apt install chromium)")
    return found


def _open(browser, page, *options):
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
         "--virtual-time-budget=4000", *options, page.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_a_browser_renders_it_without_an_error_and_without_a_request(evaluated, run_cli, tmp_path):
    browser = _browser()
    run_cli("report", evaluated, "-o", "page.html", *FAST)
    dom, console = _open(browser, tmp_path / "page.html", "--host-resolver-rules=MAP * ~NOTFOUND")
    assert not console, console
    assert "<svg" in dom
    assert "</html>" in dom


def test_tables_sort_and_filter_in_a_browser(evaluated, run_cli, tmp_path):
    browser = _browser()
    run_cli("report", evaluated, "-o", "page.html", *FAST)
    page = tmp_path / "page.html"
    script = """<script>addEventListener("load", () => {
      const table = document.getElementById("images-table");
      const values = () => [...table.tBodies[0].rows].map((r) => Number(r.cells[3].dataset.value));
      const button = table.tHead.rows[0].cells[3].querySelector("button");
      button.click(); const up = values(); button.click(); const down = values();
      const input = document.querySelector("input[data-filter=images-table]");
      input.value = "drive_1"; input.dispatchEvent(new Event("input"));
      const shown = [...table.tBodies[0].rows].filter((r) => !r.hidden).length;
      document.querySelector("#theme").click();
      document.body.dataset.test = JSON.stringify({ up, down, shown, theme: document.documentElement.dataset.theme });
    });</script></body>"""
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", script), encoding="utf-8")
    dom, console = _open(browser, page)
    assert not console, console
    found = json.loads(re.search(r'data-test="([^"]*)"', dom)[1].replace("&quot;", '"'))
    assert found["up"] == sorted(found["up"])
    assert found["down"] == sorted(found["up"], reverse=True)
    assert len(found["up"]) == 4
    assert found["shown"] == 2
    assert found["theme"] in ("light", "dark")
