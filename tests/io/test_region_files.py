"""The region cache, label maps and group lists."""

import pickle

import numpy as np
import pytest
from PIL import Image

from adubench.errors import DataError
from adubench.io.groups import read_groups
from adubench.io.labels import read_labels
from adubench.io.region_cache import RegionCache, open_region_cache, write_region_cache


def test_cache_round_trip(tmp_path):
    path = tmp_path / "sub" / "regions.h5"
    entries = {"drive/1": b"abc", "drive/0": b"", "é": bytes(range(256)) * 5000}
    write_region_cache(path, entries.items(), "key", "stamp", {"density": 0.2})
    cache = open_region_cache(path, "key", "stamp")
    assert cache.names == tuple(entries)
    assert cache.facts == {"density": 0.2}
    again = pickle.loads(pickle.dumps(cache))
    for name, data in entries.items():
        assert name in cache
        assert cache.read(name).tobytes() == again.read(name).tobytes() == data
    with pytest.raises(DataError, match="no entry 'x'"):
        cache.read("x")
    cache.close()
    assert cache.read("drive/1").tobytes() == b"abc"


def test_cache_of_other_parameters_or_sources_counts_as_absent(tmp_path):
    path = tmp_path / "regions.h5"
    assert open_region_cache(path, "key", "stamp") is None
    write_region_cache(path, [("a", b"1")], "key", "stamp")
    assert open_region_cache(path, "other", "stamp") is None
    assert open_region_cache(path, "key", "other") is None
    assert open_region_cache(path, "key", "stamp") is not None
    path.write_bytes(path.read_bytes()[:600])
    assert open_region_cache(path, "key", "stamp") is None
    with pytest.raises(DataError, match="Remove the file"):
        RegionCache(path)


def test_a_failed_build_leaves_nothing(tmp_path):
    path = tmp_path / "regions.h5"
    with pytest.raises(DataError, match="twice"):
        write_region_cache(path, [("a", b"1"), ("a", b"2")], "key", "stamp")

    def broken():
        yield "a", b"1"
        raise DataError("frame b: bad.")

    with pytest.raises(DataError, match="frame b"):
        write_region_cache(path, broken(), "key", "stamp")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_cache(tmp_path):
    write_region_cache(tmp_path / "r.h5", [], "key", "stamp")
    assert open_region_cache(tmp_path / "r.h5", "key", "stamp").names == ()


def test_labels_are_ids_not_colours(tmp_path):
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(ids).save(tmp_path / "grey.png")
    palette = Image.fromarray(ids, mode="P")
    palette.putpalette([v for k in range(256) for v in (255 - k, k, 7)])
    palette.save(tmp_path / "palette.png")
    for name in ("grey.png", "palette.png"):
        np.testing.assert_array_equal(read_labels(tmp_path / name), ids)


def test_label_files_that_are_none(tmp_path):
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(tmp_path / "rgb.png")
    Image.fromarray(np.zeros((3, 4), np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(tmp_path / "lossy.jpg")
    Image.fromarray(np.random.default_rng(0).integers(0, 18, (40, 40), np.uint8)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    for name, words in (
        ("rgb.png", "Save the ids"),
        ("deep.png", "16 bits"),
        ("lossy.jpg", "not a PNG"),
        ("cut.png", "cannot decode"),
        ("absent.png", "absent.png"),
    ):
        with pytest.raises(DataError, match=words):
            read_labels(tmp_path / name)


def test_groups(tmp_path):
    path = tmp_path / "groups.csv"
    path.write_text('image,group\n# weather\n\n"a, 1",rain\nb,dry\nb,dry\n', encoding="utf-8-sig")
    assert read_groups(path) == {"a, 1": "rain", "b": "dry"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\n", "line 1: expected image,group"),
        ("image,group\na,b,c\n", "line 2"),
        ("a,\n", "line 1"),
        ("a,x\na,y\n", "in two groups"),
        ("image,group\n", "no lines"),
    ],
)
def test_group_files_that_make_no_sense(tmp_path, text, words):
    path = tmp_path / "groups.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_groups(path)
    with pytest.raises(DataError, match="cannot read"):
        read_groups(tmp_path / "absent.csv")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_groups(path)
