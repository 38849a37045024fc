import io

import numpy as np
import pytest
from PIL import Image

from adubench.errors import DataError
from adubench.io.images import image_size, read_rgb

from .helpers import SIGNATURE, ihdr, png, smooth_map

RGB = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)


def _save(path, image, **options):
    image.save(path, **options)
    return path


def test_png_is_exact(tmp_path):
    path = _save(tmp_path / "a.png", Image.fromarray(RGB))
    np.testing.assert_array_equal(read_rgb(path), RGB)
    assert image_size(path) == (9, 14)
    assert read_rgb(path).flags.writeable


def test_jpeg_grey_palette_alpha(tmp_path):
    path = _save(tmp_path / "a.jpg", Image.fromarray(RGB), quality=95)
    assert read_rgb(path).shape == (9, 14, 3)
    assert image_size(path) == (9, 14)
    grey = read_rgb(_save(tmp_path / "g.png", Image.fromarray(RGB[..., 0])))
    np.testing.assert_array_equal(grey, np.repeat(RGB[..., :1], 3, axis=2))
    alpha = np.dstack([RGB, np.full((9, 14), 7, np.uint8)])
    np.testing.assert_array_equal(read_rgb(_save(tmp_path / "b.png", Image.fromarray(alpha))), RGB)
    assert read_rgb(_save(tmp_path / "p.png", Image.fromarray(RGB).quantize(8))).shape == (9, 14, 3)


def test_refused(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(png(smooth_map()))
    with pytest.raises(DataError, match=r"x\.png: .*depth map\?"):
        read_rgb(path)
    assert image_size(path) == smooth_map().shape
    path.write_bytes(SIGNATURE + ihdr(60000, 60000, 8, 2))
    with pytest.raises(DataError, match="limit"):
        read_rgb(path)
    path.write_text("nothing")
    for read in (read_rgb, image_size):
        with pytest.raises(DataError, match="looks like text"):
            read(path)
    for read in (read_rgb, image_size):
        with pytest.raises(DataError, match="no such file"):
            read(tmp_path / "gone.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_truncated(tmp_path, kind):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(out, kind)
    path = tmp_path / "t.img"
    path.write_bytes(out.getvalue()[: len(out.getvalue()) // 2])
    with pytest.raises(DataError, match="cannot decode"):
        read_rgb(path)
