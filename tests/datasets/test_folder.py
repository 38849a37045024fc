"""Plain folders of images and maps."""

import numpy as np
import pytest

from adubench.datasets.check import check_folder
from adubench.datasets.folder import open_folder
from adubench.errors import DataError


@pytest.fixture
def folders(tmp_path, trees):
    for k, name in enumerate(("a/x", "a/y", "b/x")):
        trees.save_image(tmp_path / "rgb" / f"{name}.jpg")
        trees.save_png(tmp_path / "depth" / f"{name}.png", trees.depth_codes(k))
    return tmp_path / "rgb", tmp_path / "depth"


def test_pairs_by_stem(folders):
    data = open_folder(*folders)
    assert [s.frame.name for s in data.samples] == ["a/x", "a/y", "b/x"]
    assert [s.frame.drive for s in data.samples] == ["a", "a", "b"]
    assert data.samples[0].depth == folders[1] / "a/x.png"
    assert [f.name for f in data.frames] == ["a/x", "a/y", "b/x"]


def test_images_alone(folders):
    assert all(s.depth is None for s in open_folder(folders[0]).samples)


def test_what_has_no_partner_is_named(folders, trees):
    (folders[1] / "a/x.png").unlink()
    trees.save_png(folders[1] / "z.png", trees.depth_codes())
    data = open_folder(*folders)
    assert (data.without_depth, data.without_image) == (("a/x",), ("z",))
    report = check_folder(*folders)
    assert not report.ok
    assert any("a/x" in f.text for f in report.findings)


def test_list_pairs_other_names(folders, tmp_path, trees):
    trees.save_png(folders[1] / "first_depth.png", trees.depth_codes())
    path = tmp_path / "list.txt"
    path.write_text("a/x.jpg first_depth.png\nb/x.jpg None\n")
    data = open_folder(*folders, path)
    assert [s.depth for s in data.samples] == [folders[1] / "first_depth.png", None]
    assert data.without_depth == ("b/x",)
    path.write_text("a/x.jpg absent.png\n")
    with pytest.raises(DataError, match=r"list\.txt:1: ground truth not found.*E8"):
        open_folder(*folders, path)
    path.write_text("absent.jpg a/x.png\n")
    with pytest.raises(DataError, match="E7"):
        open_folder(*folders, path)


def test_faults(folders, tmp_path, trees):
    with pytest.raises(DataError, match="not found"):
        open_folder(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.png"):
        open_folder(tmp_path / "empty")
    trees.save_png(tmp_path / "other/q.png", trees.depth_codes())
    with pytest.raises(DataError, match="no common names"):
        open_folder(folders[0], tmp_path / "other")
    trees.save_image(folders[0] / "a/x.png")
    with pytest.raises(DataError, match="two files for 'a/x'"):
        open_folder(*folders)


def test_check(folders, trees):
    report = check_folder(*folders, full=True)
    assert report.ok
    assert report.facts["sizes"] == "64x24 (3)"
    trees.save_png(folders[1] / "a/x.png", trees.depth_codes(shape=(12, 32)))
    (folders[1] / "a/y.png").write_bytes((folders[1] / "b/x.png").read_bytes()[:200])
    trees.save_png(folders[1] / "b/x.png", np.zeros((24, 64), np.uint16))
    texts = [f.text for f in check_folder(*folders, full=True).findings]
    assert any("32x12 pixels, its image has 64x24" in t for t in texts)
    assert any("a/y.png" in t for t in texts)
    assert any("no pixel has a value" in t for t in texts)
