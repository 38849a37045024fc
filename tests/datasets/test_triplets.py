"""Samples of self-supervised training against the reference's, and what is said when an image is missing."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adubench.datasets.frames import kitti_frame
from adubench.datasets.kitti import KittiRaw
from adubench.datasets.motion import SHARE, changed_share, check_motion, static_drives
from adubench.datasets.triplets import (
    Jitter,
    TripletDraw,
    TripletPlaces,
    TripletRule,
    check_intrinsics,
    draw_triplet,
    jitter_colours,
    load_triplet,
    make_triplet,
    resize_lanczos,
    scaled_intrinsics,
    with_sources,
)
from adubench.errors import DataError, UsageError
from tests.self_supervised import DRIVE, write_drive

GOLDEN = Path(__file__).parents[1] / "data" / "self_supervised" / "dataset_item.npz"
RULE = TripletRule((32, 96), stereo=True, source_scales=4, augment=False)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return {key: file[key] for key in file.files}


def natives(golden):
    return {source: golden[f"native_{source}"] for source in (0, -1, 1, "s")}


@pytest.mark.parametrize(("side", "flip"), [("l", False), ("l", True), ("r", False), ("r", True)])
def test_sample_equals_the_reference(golden, side, flip):
    name = f"{side}_{'flip' if flip else 'plain'}"
    sample = make_triplet(natives(golden), RULE, TripletDraw(flip=flip), side=side)
    np.testing.assert_array_equal(sample.stereo, golden[f"stereo_T_{name}"])
    compared = 0
    for (source, scale), image in sample.colour.items():
        expected = golden.get(f"color_{source}_{scale}_{name}")
        if expected is not None:
            difference = np.abs(image.transpose(2, 0, 1).astype(int) - expected)
            assert difference.max() <= 1  # Pillow's Lanczos may round differently from version to version
            assert (difference > 0).mean() < 0.01
            compared += 1
    assert compared == {"l_plain": 16, "l_flip": 4}.get(name, 0)
    for scale in range(4):
        np.testing.assert_allclose(sample.K[scale], golden[f"K_{scale}"], atol=1e-5)
        np.testing.assert_allclose(sample.inverse_k[scale], golden[f"inv_K_{scale}"], atol=1e-5)


def test_the_pyramid_is_chained_over_8_bit_images(golden):
    sample = make_triplet(natives(golden), RULE, TripletDraw())
    np.testing.assert_array_equal(sample.colour[0, 2], resize_lanczos(sample.colour[0, 1], (8, 24)))
    assert (sample.colour[0, 2] != resize_lanczos(golden["native_0"], (8, 24))).any()


def test_clean_and_augmented_images_are_kept_apart(golden):
    jitter = Jitter((3, 1, 0, 2), (1.2, 0.8, 1.1), 0.05)
    plain = make_triplet(natives(golden), RULE, TripletDraw())
    sample = make_triplet(natives(golden), RULE, TripletDraw(jitter=jitter))
    for source in (0, -1, 1, "s"):
        np.testing.assert_array_equal(sample.colour[source, 0], plain.colour[source, 0])
        np.testing.assert_array_equal(sample.augmented[source], jitter_colours(plain.colour[source, 0], jitter))
        assert (sample.augmented[source] != sample.colour[source, 0]).mean() > 0.5


def test_colour_operations():
    grey = np.full((4, 4, 3), 100, np.uint8)
    assert jitter_colours(grey, Jitter((0,), (1.2, 1.0, 1.0), 0.0)).tolist() == np.full((4, 4, 3), 120).tolist()
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 200
    turned = jitter_colours(red, Jitter((3,), (1.0, 1.0, 1.0), 1 / 3))
    assert turned[0, 0, 1] > 190 > 10 > turned[0, 0, 0]
    back = jitter_colours(red, Jitter((3,), (1.0, 1.0, 1.0), -1 / 3))
    assert back[0, 0, 2] > 190


def test_draws_are_independent_coins_over_the_stated_ranges():
    rule = TripletRule()
    draws = [draw_triplet(np.random.default_rng(k), rule) for k in range(400)]
    flips = np.array([draw.flip for draw in draws])
    jitters = [draw.jitter for draw in draws]
    changed = np.array([jitter is not None for jitter in jitters])
    for share in (flips.mean(), changed.mean(), flips[changed].mean()):
        assert 0.4 < share < 0.6
    factors = np.array([jitter.factors for jitter in jitters if jitter])
    hues = np.array([jitter.hue for jitter in jitters if jitter])
    assert 0.8 <= factors.min() < 0.81 < 1.19 < factors.max() <= 1.2
    assert -0.1 <= hues.min() < -0.09 < 0.09 < hues.max() <= 0.1
    assert len({jitter.order for jitter in jitters if jitter}) == 24
    assert draw_triplet(np.random.default_rng(0), TripletRule(augment=False)) == TripletDraw()


def test_the_principal_point_is_mirrored_only_where_it_is_known(golden):
    centred = make_triplet(natives(golden), RULE, TripletDraw(flip=True))
    assert centred.K[0][0, 2] == 48
    values = (0.6, 1.9, 0.45, 0.5)
    known = make_triplet(natives(golden), RULE, TripletDraw(flip=True), intrinsics=values, centred=False)
    np.testing.assert_allclose(known.K[1][0, 2], 47 - 0.45 * 48, atol=1e-5)
    assert known.K[0][0, 0] == scaled_intrinsics(values, (32, 96), 0)[0, 0]


def test_intrinsics_in_pixels_are_refused():
    with pytest.raises(DataError, match="Divide fx and cx by the width"):
        check_intrinsics((721.5, 721.5, 609.6, 172.9), "my camera")


def test_a_sample_depends_on_seed_epoch_and_frame_only(tmp_path):
    places = write_drive(tmp_path)
    rule = TripletRule((64, 96), stereo=True)
    frame = kitti_frame(DRIVE, 2)
    load_triplet(places, kitti_frame(DRIVE, 3), rule, seed=0, epoch=0)
    first = [load_triplet(places, frame, rule, seed=0, epoch=epoch) for epoch in range(6)]
    again = load_triplet(TripletPlaces(KittiRaw(tmp_path)), frame, rule, seed=0, epoch=3)
    assert all((again.augmented[s] == first[3].augmented[s]).all() for s in (0, -1, 1, "s"))
    assert len({sample.augmented[0].tobytes() for sample in first}) > 2
    assert set(first[0].colour) == {(0, 0), (0, 1), (0, 2), (0, 3), (-1, 0), (1, 0), ("s", 0)}


def test_sources_are_neighbours_of_the_same_camera_and_the_other_side(tmp_path):
    places = write_drive(tmp_path)
    rule = TripletRule((60, 160), (-2, 1), stereo=True, scales=1, augment=False)
    sample = load_triplet(places, kitti_frame(DRIVE, 2, 3), rule, seed=0, epoch=0)
    folder = tmp_path / "2011_09_26" / f"{DRIVE}_sync"
    expected = {0: ("image_03", 2), -2: ("image_03", 0), 1: ("image_03", 3), "s": ("image_02", 2)}
    for source, (camera, index) in expected.items():
        image = np.asarray(Image.open(folder / camera / "data" / f"{index:010d}.png"))
        np.testing.assert_array_equal(sample.colour[source, 0], image)
    assert sample.stereo[0, 3] == np.float32(0.1)


def test_a_missing_neighbour_is_named(tmp_path):
    places = write_drive(tmp_path, cameras=(2,))
    rule = TripletRule((64, 96))
    with pytest.raises(DataError, match=r"image_02/0000000005: its neighbour \+1 .*image_02/0000000006 is missing"):
        load_triplet(places, kitti_frame(DRIVE, 5), rule, seed=0, epoch=0)
    with pytest.raises(DataError, match=r"its stereo image .*image_03/0000000002 is missing.*use_stereo: false"):
        load_triplet(places, kitti_frame(DRIVE, 2), TripletRule((64, 96), stereo=True), seed=0, epoch=0)
    with pytest.raises(DataError, match=r"0000000002: its neighbour -5 lies before the first frame"):
        load_triplet(places, kitti_frame(DRIVE, 2), TripletRule((64, 96), (-5,)), seed=0, epoch=0)


def test_images_of_two_sizes_in_one_sample_are_named(tmp_path):
    places = write_drive(tmp_path, cameras=(2,))
    path = places.raw.image(kitti_frame(DRIVE, 3))
    Image.open(path).resize((80, 30)).save(path)
    rule = TripletRule((64, 96))
    with pytest.raises(DataError, match=r"image_02/0000000003 has 80x30 pixels, .*image_02/0000000002 160x60"):
        load_triplet(places, kitti_frame(DRIVE, 2), rule, seed=0, epoch=0)


def test_frames_at_the_ends_of_a_drive_are_separated(tmp_path):
    places = write_drive(tmp_path, cameras=(2,))
    frames = tuple(kitti_frame(DRIVE, k) for k in range(6))
    kept, dropped = with_sources(places, frames, TripletRule((64, 96)))
    assert [frame.index for frame in kept] == [1, 2, 3, 4]
    assert [frame.index for frame in dropped] == [0, 5]
    with pytest.raises(DataError, match="no frame has all its sources"):
        with_sources(places, frames, TripletRule((64, 96), stereo=True))


def test_a_standing_camera_is_named(tmp_path):
    moving, standing = "2011_09_26_drive_0001", "2011_09_26_drive_0060"
    places = write_drive(tmp_path)
    write_drive(tmp_path, move=0, drive=standing)
    frames = tuple(kitti_frame(drive, k) for drive in (moving, standing) for k in range(6))
    assert list(static_drives(places, frames)) == [standing]
    check_motion(places, frames[:6])
    with pytest.raises(DataError, match=f"stands still in {standing}"):
        check_motion(places, frames)


def test_noise_is_no_motion():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (192, 640, 3)).astype(np.float64)
    noisy = [np.clip(base + rng.normal(0, 4, base.shape), 0, 255).astype(np.uint8) for _ in range(2)]
    assert changed_share(*noisy) < SHARE


@pytest.mark.parametrize(
    ("offsets", "message"), [((0, 1), "other than 0"), ((1, 1), "different"), ((), "needs a source")]
)
def test_impossible_rules_are_named(offsets, message):
    with pytest.raises(UsageError, match=message):
        TripletRule(offsets=offsets)
