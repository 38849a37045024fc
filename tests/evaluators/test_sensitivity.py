"""Known faults and what notices them."""

import math

import numpy as np
import pytest

from adubench.errors import DataError, UsageError
from adubench.evaluators.faults import FAULTS, apply_fault, edge_mask
from adubench.evaluators.region_run import RegionRequest
from adubench.evaluators.sensitivity import parse_faults, sensitivity
from adubench.reports.formats import render_rich
from adubench.reports.sensitivity import sensitivity_tables, to_dict


@pytest.fixture
def scene():
    """A slanted wall with a near box, a pole three pixels wide, and sky."""
    rows, columns = np.mgrid[:48, :96]
    depth = (20 + 0.5 * columns + 0 * rows).astype(np.float32)
    depth[20:40, 30:50] = 8
    depth[10:44, 70:73] = 12
    depth[:6] = 0
    return depth


@pytest.fixture
def folder(scene, tmp_path):
    for i in range(3):
        np.save(tmp_path / f"{i:04d}.npy", scene * np.float32(1 + 0.05 * i))
    return tmp_path


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_changes_depth_and_keeps_holes(name, scene):
    for strength in FAULTS[name].strengths:
        wrong = apply_fault(name, scene, strength)
        assert wrong.dtype == np.float32
        assert ((wrong > 0) == (scene > 0)).all()
        assert np.abs(wrong - scene).max() > 0
        np.testing.assert_array_equal(wrong, apply_fault(name, scene, strength))


def test_faults_of_edges_leave_the_rest_alone(scene):
    from scipy.ndimage import binary_dilation

    far = ~binary_dilation(edge_mask(scene), iterations=10)
    for name in ("edge-shift", "edge-bleeding"):
        wrong = apply_fault(name, scene, 2)
        np.testing.assert_array_equal(wrong[far], scene[far])


def test_waves_leave_edges_alone(scene):
    wrong = apply_fault("waves", scene, 0.05)
    np.testing.assert_array_equal(wrong[edge_mask(scene)], scene[edge_mask(scene)])


def test_only_what_is_thin_and_near_is_dropped(scene):
    wrong = apply_fault("thin-dropped", scene, 8)
    assert (wrong[20, 70:73] > 50).all()
    np.testing.assert_array_equal(wrong[20:40, 30:50], scene[20:40, 30:50])


def test_compression_begins_at_forty_metres(scene):
    wrong = apply_fault("far-compression", scene, 0.5)
    near = scene <= 40
    np.testing.assert_array_equal(wrong[near], scene[near])
    np.testing.assert_allclose(wrong[~near], 40 + (scene[~near] - 40) / 2, rtol=1e-6)


def test_silog_is_blind_to_scale_and_abs_rel_is_not(folder):
    found = sensitivity(folder, faults=["scale:1.05,1.25"])
    for response in found.responses:
        assert response.ratios["silog"] < 0.01
        assert response.ratios["abs_rel"] > 0.5
        assert response.errors["abs_rel"] == pytest.approx(response.strength - 1, rel=1e-4)
    assert "blind" in render_rich(sensitivity_tables(found))


def test_the_reference_answers_one(folder):
    found = sensitivity(folder, faults=["noise:0.1"], metrics=["abs_rel", "rmse", "d1"])
    assert found.responses[0].ratios == {key: pytest.approx(1) for key in ("abs_rel", "rmse", "d1")}


def test_a_region_notices_where_the_fault_is(folder):
    found = sensitivity(folder, faults=["far-compression:0.5"], regions=RegionRequest(families="depth", cache="off"))
    regions = found.responses[0].regions
    assert regions["depth0"]["abs_rel"] == 0
    assert regions["depth3"]["abs_rel"] > 1
    plain = to_dict(found)
    assert plain["responses"][0]["unit"] == "share"
    assert not any(isinstance(v, float) and math.isnan(v) for v in plain["responses"][0]["ratios"].values())


def test_faults_are_parsed():
    assert parse_faults(["blur:1,2", "scale"]) == [
        ("blur", 1),
        ("blur", 2),
        *(("scale", s) for s in (1.01, 1.05, 1.25)),
    ]
    assert len(parse_faults([])) == sum(len(f.strengths) for f in FAULTS.values())
    for text, words in (("blurr", "did you mean 'blur'"), ("blur:x", "no strength"), ("blur:-1", "no strength")):
        with pytest.raises(UsageError, match=words):
            parse_faults([text])


def test_sparse_maps_are_refused(tmp_path, scene):
    scene[np.random.default_rng(0).random(scene.shape) < 0.8] = 0
    np.save(tmp_path / "a.npy", scene)
    with pytest.raises(DataError, match=r"a\.npy: .*need dense maps"):
        sensitivity(tmp_path)
