from __future__ import annotations

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
