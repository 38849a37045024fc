"""DrivingStereo: every folder variant, both encodings, the subset rule, the checks."""

import pickle
import shutil

import numpy as np
import pytest

from adubench.datasets.check_stereo import check_drivingstereo
from adubench.datasets.driving_stereo import adu_subset, index_part, known_sequences, subset_digest
from adubench.datasets.ground_truth import open_ground_truth
from adubench.datasets.splits import load_split
from adubench.errors import DataError, UsageError

VARIANTS = {
    "as unpacked": {},
    "per sequence": {"depth-map": "test-depth-map/2018-07-11-14-48-52"},
    "flat": {m: f"test-{m}" for m in ("left-image", "right-image", "disparity-map", "depth-map")},
    "underscores": {m: f"test_{m.replace('-', '_')}" for m in ("left-image", "depth-map", "disparity-map")},
    "parent folder": {m: f"test/test-{m}/{m}-half-size" for m in ("left-image", "depth-map")},
    "doubled level": {"depth-map": "test-depth-map/depth-map-half-size/depth-map-half-size"},
    "capitals": {"depth-map": "Test-Depth-Map/Depth-Map-Half-Size"},
}


@pytest.mark.parametrize("names", VARIANTS.values(), ids=VARIANTS)
def test_folder_variants(tmp_path, trees, names):
    stems = trees.write_drivingstereo(tmp_path, names=names)
    index = index_part(tmp_path, "test")
    assert index.stems == tuple(sorted(stems))
    assert index.dropped == {}
    source = pickle.loads(pickle.dumps(open_ground_truth(load_split("drivingstereo", tmp_path), None, tmp_path)))
    depth = source.read(source.frames[1])
    expected = np.random.default_rng(1).uniform(5, 70, (20, 44))
    np.testing.assert_allclose(depth.dense(), expected, atol=1 / 256)
    assert source.frames[0].drive == trees.STEREO_TEST


@pytest.mark.parametrize("base", ["{w}", "weather/{w}", "{w}/data", "weather/{w}/data"])
def test_weather_sets(tmp_path, trees, base):
    base = base.format(w="rainy")
    names = {m: f"{base}/{m}-half-size" for m in ("left-image", "right-image", "disparity-map", "depth-map")}
    trees.write_drivingstereo(tmp_path, names=names, sequence="2018-08-17-09-45-58")
    split = load_split("drivingstereo.weather.rainy", tmp_path)
    assert (len(split.frames), split.count) == (3, 500)
    assert any("training sequence" in note for note in split.notes)


def test_weather_sets_use_full_resolution_where_it_exists(tmp_path, trees):
    for size, shape in (("half", (20, 44)), ("full", (40, 88))):
        names = {m: f"foggy/{m}-{size}-size" for m in ("left-image", "right-image", "disparity-map", "depth-map")}
        trees.write_drivingstereo(tmp_path, names=names, size=shape)
    split = load_split("drivingstereo.weather.foggy", tmp_path)
    assert open_ground_truth(split, None, tmp_path).read(split.frames[0]).shape == (40, 88)
    half = open_ground_truth(split, None, tmp_path, resolution="half")
    assert half.read(split.frames[0]).shape == (20, 44)


def test_counts_are_expected_of_published_sequences_only(tmp_path, trees):
    trees.write_drivingstereo(tmp_path)
    assert load_split("drivingstereo", tmp_path).count == 7751
    shutil.rmtree(tmp_path / "test-depth-map")
    shutil.rmtree(tmp_path / "test-left-image")
    trees.write_drivingstereo(tmp_path, sequence="2031-01-01-08-00-01")
    assert load_split("drivingstereo", tmp_path).count == 3


def test_stems_without_partner_are_counted(tmp_path, trees):
    stems = trees.write_drivingstereo(tmp_path)
    (tmp_path / "test-left-image/left-image-half-size" / f"{stems[0]}.jpg").unlink()
    index = index_part(tmp_path, "test")
    assert index.stems == tuple(stems[1:])
    assert index.dropped == {"right-image": 1, "disparity-map": 1, "depth-map": 1}
    assert index.pool() == tuple(stems[1:])
    split = load_split("drivingstereo", tmp_path)
    assert "1 depth-map files have no partner" in split.notes


def test_maps_alone_are_enough_to_evaluate(tmp_path, trees):
    stems = trees.write_drivingstereo(tmp_path)
    shutil.rmtree(tmp_path / "test-left-image")
    assert index_part(tmp_path, "test").stems == tuple(stems)


def test_two_files_of_one_stem(tmp_path, trees):
    stems = trees.write_drivingstereo(tmp_path)
    trees.save_png(tmp_path / "test-depth-map/depth-map-half-size/sub" / f"{stems[0]}.png", trees.depth_codes())
    with pytest.raises(DataError, match=f"two files for '{stems[0]}'"):
        index_part(tmp_path, "test")


def test_half_images_with_full_maps(tmp_path, trees):
    trees.write_drivingstereo(tmp_path)
    for path in (tmp_path / "test-depth-map/depth-map-half-size").iterdir():
        trees.save_png(path, trees.depth_codes(shape=(40, 88)))
    with pytest.raises(DataError, match="half-resolution images and full-resolution maps are mixed"):
        open_ground_truth(load_split("drivingstereo", tmp_path), None, tmp_path)


def test_no_maps_and_unknown_resolution(tmp_path, trees):
    with pytest.raises(DataError, match="expected test-depth-map/depth-map-half-size; found nothing"):
        index_part(tmp_path, "test")
    with pytest.raises(UsageError, match="half and full"):
        index_part(tmp_path, "test", "quarter")
    trees.write_drivingstereo(tmp_path)
    with pytest.raises(DataError, match="at full resolution"):
        index_part(tmp_path, "test", "full")


@pytest.mark.parametrize(("resolution", "factor"), [("half", 256), ("full", 128)])
def test_depth_from_disparity(tmp_path, trees, resolution, factor):
    stems = trees.write_drivingstereo(
        tmp_path, names={m: f"test-{m}/{m}-{resolution}-size" for m in ("left-image", "disparity-map", "depth-map")}
    )
    shutil.rmtree(tmp_path / "test-depth-map")
    (tmp_path / "test-calib/half-image-calib").rename(tmp_path / f"test-calib/{resolution}-image-calib")
    codes = np.zeros((20, 44), np.uint16)
    codes[3, 4] = 20 * factor
    trees.save_png(tmp_path / f"test-disparity-map/disparity-map-{resolution}-size" / f"{stems[0]}.png", codes)
    split = load_split("drivingstereo", tmp_path, resolution=resolution)
    source = open_ground_truth(split, None, tmp_path, resolution=resolution)
    depth = source.read(source.frames[0])
    assert depth.index.tolist() == [3 * 44 + 4]
    assert depth.metres()[0] == pytest.approx(1000 * 0.545 / 20)
    assert source.focal_baseline(source.frames[0]) == pytest.approx(545)


def test_disparity_without_calibration(tmp_path, trees):
    trees.write_drivingstereo(tmp_path)
    shutil.rmtree(tmp_path / "test-depth-map")
    shutil.rmtree(tmp_path / "test-calib")
    source = open_ground_truth(load_split("drivingstereo", tmp_path), None, tmp_path)
    with pytest.raises(DataError, match="calibration of sequence"):
        source.read(source.frames[0])


def test_subset_rule():
    train = "2018-07-09-16-11-56_2018-07-09-16-12-06-408"
    test = "2018-07-11-14-48-52_2018-07-11-15-45-53-241"
    assert subset_digest("train", train).startswith("d3f35c1a660b8d4f")
    assert subset_digest("test", test).startswith("8d3a00683fd8a373")
    stems = [f"{i:05d}" for i in range(2000)]
    chosen = adu_subset("test", stems)
    assert len(chosen) == 600
    assert list(chosen) == sorted(chosen)
    assert adu_subset("test", reversed(stems)) == chosen
    # Taking away frames outside the subset changes nothing; a missing one is replaced by the next digest.
    assert adu_subset("test", [s for s in stems if s in chosen or int(s) % 2]) == chosen
    without = adu_subset("test", [s for s in stems if s != chosen[0]])
    assert len(set(without) - set(chosen)) == 1


def test_subset_of_a_small_pool_is_all_of_it(tmp_path, trees):
    stems = trees.write_drivingstereo(tmp_path)
    split = load_split("drivingstereo.adu_test", tmp_path)
    assert [f.name for f in split.frames] == stems
    assert split.count == 600
    assert any("subset_sha256" in note for note in split.notes)


def test_published_sequences():
    assert len(known_sequences("train")) == 38
    assert len(known_sequences("test")) == 4
    assert set(known_sequences("rainy")) <= set(known_sequences("train"))


def errors(report):
    return [f.text for f in report.findings if f.level == "error"]


def test_check_of_a_good_tree(tmp_path, trees):
    trees.write_drivingstereo(tmp_path, sequence="2031-01-01-08-00-01")
    report = check_drivingstereo(tmp_path, "test", full=True)
    assert report.ok, errors(report)
    assert report.table["2031-01-01-08-00-01"]["depth*disparity/(fx*b)"] == pytest.approx(1, abs=0.01)
    assert any("none of the published ones" in f.text for f in report.findings)


def test_check_names_missing_sequences(tmp_path, trees):
    trees.write_drivingstereo(tmp_path)
    assert any("2018-08-01-11-13-14" in text for text in errors(check_drivingstereo(tmp_path)))


def test_check_finds_the_disparity_factor(tmp_path, trees):
    stems = trees.write_drivingstereo(tmp_path, sequence="2031-01-01-08-00-01")
    path = tmp_path / "test-disparity-map/disparity-map-half-size" / f"{stems[0]}.png"
    depth = np.random.default_rng(0).uniform(5, 70, (20, 44))
    trees.save_png(path, np.rint(545 / depth * 128).astype(np.uint16))
    assert any("full-resolution disparity uses 128" in text for text in errors(check_drivingstereo(tmp_path)))


def test_check_finds_eight_bit_maps_and_missing_calibration(tmp_path, trees):
    stems = trees.write_drivingstereo(tmp_path, sequence="2031-01-01-08-00-01")
    path = tmp_path / "test-depth-map/depth-map-half-size" / f"{stems[0]}.png"
    trees.save_png(path, np.full((20, 44), 70, np.uint16))
    assert any("8 bits" in text for text in errors(check_drivingstereo(tmp_path)))
    trees.save_png(path, np.full((20, 44), 70, np.uint8))
    assert any(str(path) in text for text in errors(check_drivingstereo(tmp_path)))
    trees.save_png(path, np.full((20, 44), 7000, np.uint16))
    shutil.rmtree(tmp_path / "test-calib")
    report = check_drivingstereo(tmp_path)
    assert report.ok
    assert any("no calibration file" in f.text for f in report.findings)


def test_check_of_an_empty_root(tmp_path):
    assert not check_drivingstereo(tmp_path).ok
    assert not check_drivingstereo(tmp_path / "absent").ok
