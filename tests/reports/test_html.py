"""The report: one page that holds everything it shows."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from adubench.evaluators.comparison import compare
from adubench.io.maps import SparseDepth
from adubench.reports.figures import save_figures, to_svg
from adubench.reports.html import Page, chosen_frames, frame_facts, render_page, report_figures
from adubench.reports.pictures import (
    ERROR_CLASSES,
    FrameMaps,
    FrameView,
    Panel,
    depth_picture,
    error_picture,
    grown,
    panels,
)
from tests.evaluators.results_for_comparison import make_result

REGIONS = ("all", "depth3")


@pytest.fixture(scope="module")
def results():
    return [make_result(name, i, bias=0.05 * i, regions=REGIONS) for i, name in enumerate(("<b>ours</b>", "base", "c"))]


@pytest.fixture(scope="module")
def comparison(results):
    return compare(results, baseline="base", resamples=200)


@pytest.fixture(scope="module")
def page(results, comparison):
    view = FrameView(
        "f/1", "worst abs_rel of base", frame_facts(results, "none", ["abs_rel"]), (Panel("image", "data:,"),)
    )
    figures = report_figures(comparison, results)
    return render_page(
        Page("Title & more", comparison, tuple(results), figures, (view,), ("pictures of c are missing",))
    )


class _References(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.ids, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        for key, value in attrs:
            if key in ("src", "href", "xlink:href", "action", "data", "srcset"):
                self.found.append((tag, value))
            if key == "id":
                self.ids.append(value)


def test_the_page_asks_nobody_for_anything(page):
    parser = _References()
    parser.feed(page)
    assert parser.found
    for tag, value in parser.found:
        assert value.startswith(("#", "data:")), (tag, value)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert "default-src 'none'" in page


def test_ids_are_unique_and_links_lead_somewhere(page):
    parser = _References()
    parser.feed(page)
    assert len(parser.ids) == len(set(parser.ids))
    for _tag, value in parser.found:
        if value.startswith("#"):
            assert value[1:] in parser.ids, value


def test_names_are_text_and_never_markup(page):
    assert "<b>ours</b>" not in page
    assert "&lt;b&gt;ours&lt;/b&gt;" in page
    assert "Title &amp; more" in page


def test_the_page_says_protocol_numbers_and_what_is_missing(page, comparison):
    assert "kitti-eigen v1, split eigen_test, 32 images" in page
    assert "pictures of c are missing" in page
    value = comparison.estimates["base"]["all"]["abs_rel"].value
    assert f"{value:.3f}" in page
    assert page.count('<tr><th scope="row">2011_09_26_drive') == 32


def test_the_same_input_gives_the_same_page(results, comparison, page):
    again = render_page(Page("Title & more", comparison, tuple(results), report_figures(comparison, results)))
    once = render_page(Page("Title & more", comparison, tuple(results), report_figures(comparison, results)))
    assert again == once


def test_figures_follow_the_colour_of_the_page(results, comparison):
    figures = {f.name: f for f in report_figures(comparison, results)}
    assert {"regions-abs_rel", "drives-abs_rel"} <= set(figures)
    svg = to_svg(figures["drives-abs_rel"])
    assert "currentColor" in svg
    assert "#123456" not in svg
    assert 'id="drives-abs_rel-' in svg


def test_figures_are_written_for_papers(results, comparison, tmp_path):
    figures = report_figures(comparison, results)[:2]
    paths = save_figures(figures, tmp_path)
    assert sorted(p.suffix for p in paths) == [".pdf", ".pdf", ".svg", ".svg"]
    for path in paths:
        data = path.read_bytes()
        assert data.startswith(b"%PDF" if path.suffix == ".pdf" else b"<?xml")
        assert b"#123456" not in data
    before = [p.read_bytes() for p in paths]
    save_figures(figures, tmp_path)
    assert [p.read_bytes() for p in paths] == before


def test_the_worst_and_the_most_different_frames_are_chosen(results, comparison):
    frames = chosen_frames(comparison, results, 2)
    assert len({f for f, _ in frames}) == len(frames)
    base = results[1].per_image
    worst = base["frame"][int(np.argmax(base["abs_rel"]))]
    assert any(f == worst and "worst abs_rel of base" in why for f, why in frames)
    ours = np.array(results[0].per_image["abs_rel"]) - np.array(base["abs_rel"])
    most = base["frame"][int(np.argmax(np.abs(ours)))]
    assert any(f == most and "than base by most" in why for f, why in frames)


def test_errors_are_painted_in_the_devkits_classes():
    truth = np.array([[10, 10, 10, 80, 0]] * 5, np.float32)
    wrong = np.array([[10, 10.1, 20, 84, 5]] * 5, np.float32)
    painted = error_picture(truth, wrong)
    assert tuple(painted[2, 0]) == ERROR_CLASSES[0][1]
    # 0.1 m is 1/30 of 3 m and 0.2 of 5 %: the smaller counts
    assert tuple(painted[2, 1]) == ERROR_CLASSES[0][1]
    # 10 m: 3.3 times 3 m
    assert tuple(painted[2, 2]) == ERROR_CLASSES[6][1]
    # 4 m at 80 m: exactly 5 %
    assert tuple(painted[2, 3]) == ERROR_CLASSES[4][1]
    assert tuple(painted[2, 4]) == (0, 0, 0)


def test_measured_points_grow_and_keep_their_colour():
    picture = np.zeros((5, 5, 3), np.uint8)
    picture[2, 2] = 200
    valid = np.zeros((5, 5), bool)
    valid[2, 2] = True
    out = grown(picture, valid)
    assert (out[[1, 3, 2, 2], [2, 2, 1, 3]] == 200).all()
    assert (out[1, 1] == 0).all()
    corner = np.zeros((5, 5), bool)
    corner[0, 0] = True
    picture[0, 0] = 100
    assert (grown(picture, corner)[4] == picture[4]).all()


def test_panels_are_what_there_is():
    depth = np.linspace(5, 60, 24 * 32, dtype=np.float32).reshape(24, 32)
    sparse = np.where(np.arange(24 * 32).reshape(24, 32) % 3 == 0, depth, 0).astype(np.float32)
    index = np.flatnonzero(sparse).astype(np.uint32)
    truth = SparseDepth((24, 32), index, sparse.reshape(-1)[index])
    image = np.zeros((24, 32, 3), np.uint8)
    made = panels(FrameMaps(truth, image, {"a": depth}, {"a": depth}), ["a", "b"])
    assert [p.title for p in made] == [
        "image", "ground truth", "distance bins and depth edges", "a: prediction", "a: error", "a: uncertainty",
    ]  # fmt: skip
    assert all(p.source.startswith("data:image/jpeg;base64,") for p in made)
    assert [p.title for p in panels(FrameMaps(None, None, {"b": depth}), ["a", "b"])] == ["b: prediction"]
    assert panels(FrameMaps(None), ["a"]) == ()


def test_depth_pictures_share_a_range():
    near, far = np.full((4, 4), 5, np.float32), np.full((4, 4), 50, np.float32)
    span = (1 / 60, 1 / 4)
    assert depth_picture(near, span).mean() > depth_picture(far, span).mean()
    assert (depth_picture(np.zeros((4, 4), np.float32), span) == 0).all()
