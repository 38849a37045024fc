"""Regions of a data set: resolved parameters, the cache, workers; real sweeps."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from adubench.errors import DataError
from adubench.evaluators.region_inputs import fit_image
from adubench.evaluators.region_params import RegionParameters
from adubench.evaluators.region_source import RegionInputs, RegionSource, count_absent, open_regions
from adubench.evaluators.regions import region_masks
from adubench.io.maps import DepthMap, SparseDepth

REAL = Path(__file__).resolve().parents[3] / "shared" / "real"
NAMES = tuple(f"drive/{k}" for k in range(9))


@dataclass
class Reader:
    share: float = 0.2
    images: bool = True
    reads: int = 0

    def truth(self, frame):
        rng = np.random.default_rng(frame)
        gt = np.where(rng.random((24, 60)) < self.share, rng.uniform(4, 90, (24, 60)), 0)
        return SparseDepth.from_map(DepthMap(gt.astype(np.float32)))

    def inputs(self, frame):
        self.reads += 1
        rgb = np.random.default_rng(frame).integers(0, 255, (24, 60, 3), dtype=np.uint8)
        return RegionInputs(self.truth(frame), rgb if self.images else None)


FRAMES = tuple((name, k) for k, name in enumerate(NAMES))
PARAMETERS = RegionParameters(edge_preset="improved")


@pytest.mark.parametrize("workers", [1, 2])
def test_cache_gives_the_masks_that_computing_gives(tmp_path, workers):
    plain, seen = RegionSource(PARAMETERS, Reader()), []
    source, _ = open_regions(
        PARAMETERS,
        Reader(),
        FRAMES,
        tmp_path / "r.h5",
        "s",
        workers=workers,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(k + 1, 9) for k in range(9)]
    for name, frame in FRAMES:
        a, b = source.codes(name, frame), plain.codes(name, frame)
        np.testing.assert_array_equal(a.codes, b.codes)
        np.testing.assert_array_equal(a.table, b.table)
        np.testing.assert_array_equal(a.bitmap, b.bitmap)
        assert a.absent == b.absent == {"ground": "no intrinsics"}


def test_cache_is_made_once_and_again_when_something_changes(tmp_path):
    reader = Reader()

    def run(parameters=PARAMETERS, stamp="s", frames=FRAMES):
        before = reader.reads
        open_regions(parameters, reader, frames, tmp_path / "r.h5", stamp)
        return reader.reads - before

    assert run() == 9
    assert run() == 0
    assert run(frames=FRAMES[:3]) == 0
    assert run(RegionParameters(edge_preset="raw")) == 9
    assert run() == 9
    assert run(stamp="t") == 9
    assert run(stamp="t", frames=(*FRAMES, ("new", 77))) == 10


def test_a_broken_frame_names_itself_and_leaves_no_cache(tmp_path):
    class Broken(Reader):
        def inputs(self, frame):
            good = super().inputs(frame)
            return RegionInputs(good.gt, good.image[:5]) if frame == 3 else good

    with pytest.raises(DataError, match="drive/3"):
        open_regions(PARAMETERS, Broken(), FRAMES, tmp_path / "r.h5", "s")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("share", "preset"), [(0.9, "dense"), (0.2, "improved"), (0.05, "raw")])
def test_preset_follows_the_mean_density(tmp_path, share, preset):
    for path in (None, tmp_path / "r.h5", tmp_path / "r.h5"):  # found, written, read
        source, facts = open_regions(RegionParameters(), Reader(share), FRAMES, path)
        assert source.parameters.edge_preset == preset
        assert source.parameters.resolved
        assert facts["density"] == pytest.approx(share, abs=0.03)
    source, facts = open_regions(RegionParameters(edge_gap=(2, 2)), Reader(share), FRAMES)
    assert source.parameters.gaps == (2, 2)
    assert facts == {}


def test_settled_parameters_belong_to_their_set_of_frames(tmp_path):
    reader = Reader()
    open_regions(RegionParameters(), reader, FRAMES, tmp_path / "r.h5")
    open_regions(RegionParameters(), reader, FRAMES, tmp_path / "r.h5")
    assert reader.reads == 9
    open_regions(RegionParameters(), reader, FRAMES[:4], tmp_path / "r.h5")
    assert reader.reads == 13


def test_quantiles_of_lightness_split_the_evaluated_pixels(tmp_path):
    asked = RegionParameters(edge_preset="improved", light_quantiles=(0.25, 0.75))
    source, _ = open_regions(asked, Reader(), FRAMES, tmp_path / "r.h5")
    again, _ = open_regions(asked, Reader(), FRAMES, tmp_path / "r.h5")
    assert source.parameters == again.parameters
    counts = np.zeros(3)
    for name, frame in FRAMES:
        masks = source.masks(name, frame, only_valid=True)
        counts += [masks.mask(f"light{k}").sum() for k in range(3)]
    np.testing.assert_allclose(counts / counts.sum(), (0.25, 0.5, 0.25), atol=0.03)
    with pytest.raises(DataError, match="no evaluated pixel"):
        open_regions(asked, Reader(images=False), FRAMES)
    few, _ = open_regions(asked, Reader(), FRAMES, pixels=lambda gt: gt.index[gt.index < 600])
    assert few.parameters != source.parameters


def test_absent_families_are_counted():
    lines = count_absent(
        [{"ground": "no ground plane found"}, {}, {"ground": "no ground plane found", "sky": "no labels"}]
    )
    assert lines == ["ground: no ground plane found in 2 of 3 images", "sky: no labels in 1 of 3 images"]


def test_larger_images_are_averaged_to_the_grid():
    image = np.random.default_rng(0).integers(0, 255, (8, 12, 3), dtype=np.uint8)
    small, resized = fit_image(image, (4, 6))
    assert resized
    np.testing.assert_allclose(small, image.reshape(4, 2, 6, 2, 3).mean(axis=(1, 3)), atol=0.51)
    same, resized = fit_image(image, (8, 12))
    assert same is image
    assert not resized


@pytest.mark.skipif(not (REAL / "kitti_000008").is_dir(), reason="real frames are not beside the repository")
def test_real_sweep_has_suspects_on_roof_lines():
    from adubench.io.images import read_rgb
    from adubench.io.kitti_calib import read_calibration
    from adubench.io.velodyne import project_scan, read_scan

    folder = REAL / "kitti_000008"
    calibration = read_calibration(folder)
    gt = project_scan(read_scan(folder / "velodyne.bin"), calibration)
    rgb = read_rgb(folder / "image_02.png")
    source, facts = open_regions(RegionParameters(), _Fixed(RegionInputs(gt, rgb, K=calibration.K)), [("real", 0)])
    parameters = source.parameters
    assert parameters.edge_preset == "raw"
    assert 0.04 < facts["density"] < 0.06
    masks = region_masks(gt, rgb, K=calibration.K, parameters=parameters, only_valid=True)
    share = {name: masks.mask(name).sum() / gt.index.size for name in ("seethrough", "light0", "repeated", "ground")}
    assert share["seethrough"] == pytest.approx(0.0065, abs=0.0005)
    assert 0.11 < share["light0"] < 0.25
    assert 0.001 < share["repeated"] < 0.07
    assert share["ground"] > 0.2


@dataclass
class _Fixed:
    held: RegionInputs

    def truth(self, frame):
        return self.held.gt

    def inputs(self, frame):
        return self.held
