from __future__ import annotations

from pathlib import Path

import numpy as np

from adubench.evaluators import flip
from tests.evaluators.metric_cases import FOLDER

VECTORS = np.load(FOLDER / "vectors.npz")
OUT, MIRRORED = VECTORS["pp_out"], VECTORS["pp_out_flipped"]


def test_golden():
    np.testing.assert_allclose(flip.blend(OUT, MIRRORED), VECTORS["pp_newcrfs"], rtol=1e-6)
    np.testing.assert_allclose(flip.blend(OUT, MIRRORED), VECTORS["pp_monodepth2"], rtol=1e-6)
    np.testing.assert_allclose(flip.blend_stereo(OUT, MIRRORED), VECTORS["pp_monodepth_benchmark"], rtol=1e-6)
    np.testing.assert_allclose(flip.mean(OUT, MIRRORED), VECTORS["pp_mean"], rtol=1e-6)


def test_borders_come_from_opposite_passes():
    plain, mirrored = np.full((2, 101), 1.0), np.full((2, 101), 3.0)
    out = flip.blend(plain, mirrored)
    assert (out[:, 0] == 3).all()
    assert (out[:, -1] == 1).all()
    assert (out[:, 50] == 2).all()
    np.testing.assert_array_equal(flip.blend_stereo(plain, mirrored), out[:, ::-1])


def test_flip_averaging_of_disparity_equals_monodepth2s():
    """Stored output of Monodepth2's batch_post_process_disparity."""
    path = Path(__file__).parents[1] / "data" / "self_supervised" / "flip_postprocess.npz"
    with np.load(path) as file:
        for disparity, mirrored, merged in zip(
            file["disp"], file["disp_of_flipped_input"], file["merged"], strict=True
        ):
            np.testing.assert_allclose(flip.blend(disparity, mirrored), merged, rtol=0, atol=1e-7)
