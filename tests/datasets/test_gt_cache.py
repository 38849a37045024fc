import os

import numpy as np
import pytest
from PIL import Image

from adubench.datasets.ground_truth import FolderGroundTruth
from adubench.datasets.gt_cache import MIN_FRAMES, PackedGroundTruth, cached_ground_truth


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    root = tmp_path / "gt"
    root.mkdir()
    for i in range(MIN_FRAMES):
        codes = rng.integers(0, 9, (6, 8)) * rng.integers(0, 2, (6, 8)) * 256
        Image.fromarray(codes.astype(np.uint16)).save(root / f"{i:04d}.png")
    return root


def _same(a, b, frame):
    one, two = a.read(frame), b.read(frame)
    return (
        one.shape == two.shape and np.array_equal(one.index, two.index) and np.array_equal(one.metres(), two.metres())
    )


def test_the_cache_reads_the_same_pixels(folder, tmp_path):
    source = FolderGroundTruth(folder)
    cached = cached_ground_truth(source, source.frames, tmp_path / "cache")
    assert isinstance(cached, PackedGroundTruth)
    assert cached.kind == source.kind
    assert all(_same(source, cached, frame) for frame in source.frames)


def test_it_is_reused_while_its_sources_stay_and_rebuilt_when_one_changes(folder, tmp_path):
    source = FolderGroundTruth(folder)
    first = cached_ground_truth(source, source.frames, tmp_path / "cache")
    written = first.file.stat().st_mtime_ns
    again = cached_ground_truth(source, source.frames, tmp_path / "cache")
    assert again.file.stat().st_mtime_ns == written
    Image.fromarray(np.full((6, 8), 512, np.uint16)).save(folder / "0003.png")
    os.utime(folder / "0003.png", ns=(1, 1))
    rebuilt = cached_ground_truth(source, source.frames, tmp_path / "cache")
    assert rebuilt.file == first.file
    assert rebuilt.read(source.frames[3]).metres() == pytest.approx(np.full(48, 2.0))


def test_a_damaged_cache_is_rebuilt(folder, tmp_path):
    source = FolderGroundTruth(folder)
    first = cached_ground_truth(source, source.frames, tmp_path / "cache")
    first.file.write_bytes(first.file.read_bytes()[:500])
    assert _same(source, cached_ground_truth(source, source.frames, tmp_path / "cache"), source.frames[0])


def test_two_roots_never_share_a_pack(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for path in folder.iterdir():
        Image.fromarray(np.asarray(Image.open(path)) // 2).save(other / path.name)
    packs = [
        cached_ground_truth(FolderGroundTruth(r), FolderGroundTruth(r).frames, tmp_path / "c") for r in (folder, other)
    ]
    assert packs[0].file != packs[1].file


def test_small_sets_and_unwritable_folders_are_read_directly(folder, tmp_path):
    source = FolderGroundTruth(folder)
    assert cached_ground_truth(source, source.frames[:3], tmp_path / "cache") is source
    (tmp_path / "file").touch()
    assert cached_ground_truth(source, source.frames, tmp_path / "file") is source
