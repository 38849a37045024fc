from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from adubench.errors import DataError
from adubench.io.edges import read_edges

EDGES = np.zeros((6, 9), bool)
EDGES[2, 3:7] = True
EDGES[5, 0] = True


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_images(tmp_path, mode):
    path = tmp_path / "edges.png"
    image = Image.fromarray(EDGES) if mode == "1" else Image.fromarray(EDGES.astype(np.uint8) * 255).convert(mode)
    image.save(path)
    assert np.array_equal(read_edges(path, EDGES.shape), EDGES)
    assert np.array_equal(read_edges(path), EDGES)


def test_values_zero_and_one(tmp_path):
    path = tmp_path / "edges.png"
    Image.fromarray(EDGES.astype(np.uint8)).save(path)
    assert np.array_equal(read_edges(path), EDGES)
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(path)
    assert not read_edges(path, (4, 5)).any()


@pytest.mark.parametrize("separator", [" ", "  ", ",", "\t"])
def test_pairs(tmp_path, separator):
    path = tmp_path / "edges.txt"
    lines = [f"{row}{separator}{column}" for row, column in np.argwhere(EDGES)]
    path.write_text("# row column\n\n" + "\n".join(lines) + "\n")
    assert np.array_equal(read_edges(path, EDGES.shape), EDGES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 2\n3\n", "line 2.*'3'"),
        ("1 2 3\n", "line 1"),
        ("1.5 2\n", "line 1"),
        ("1 2\n6 0\n", "line 2.*row 6.*9 x 6"),
        ("0 -1\n", "line 1.*column -1"),
        ("\u00e9", "not a text file"),
    ],
)
def test_bad_pairs(tmp_path, text, words):
    path = tmp_path / "edges.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_edges(path, EDGES.shape)


def test_bad_files(tmp_path):
    path = tmp_path / "edges.png"
    with pytest.raises(DataError, match="no such file"):
        read_edges(path)
    Image.fromarray(EDGES).save(path)
    with pytest.raises(DataError, match="9 x 6 pixels, expected 9 x 7"):
        read_edges(path, (7, 9))
    Image.fromarray(~EDGES).save(path)
    with pytest.raises(DataError, match="inverted"):
        read_edges(path)
    Image.fromarray(np.arange(54, dtype=np.uint8).reshape(6, 9)).save(path)
    with pytest.raises(DataError, match="two values"):
        read_edges(path)
    (tmp_path / "list.txt").write_text("1 1\n")
    with pytest.raises(DataError, match="size"):
        read_edges(tmp_path / "list.txt")
