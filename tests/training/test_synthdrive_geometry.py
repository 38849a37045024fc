"""Depth, motion and calibration of SynthDrive explain its images: the photometric error is lowest at the truth.

Goldens fix every formula; this fixes what they mean together: which way a pose maps, when it is inverted, the order of
the neighbours, the side of the stereo image, mirroring, and the intrinsics.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from adubench.datasets.kitti import KittiRaw  # noqa: E402
from adubench.datasets.splits import load_split  # noqa: E402
from adubench.datasets.synthdrive.rig import kitti_rig  # noqa: E402
from adubench.datasets.triplets import (  # noqa: E402
    STEREO_UNIT,
    TripletDraw,
    TripletPlaces,
    TripletRule,
    make_triplet,
    source_key,
)
from adubench.io.depth_png import read_depth_map  # noqa: E402
from adubench.models.disparity import depth_to_disparity  # noqa: E402
from adubench.models.pose import Pose, temporal_pair  # noqa: E402
from adubench.training.photometric import PhotometricConfig, photometric_losses  # noqa: E402
from adubench.training.triplet_data import collate_triplets, unpack  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = (64, 128)
RULE = TripletRule(SIZE, stereo=True, per_drive_intrinsics=True)
CONFIG = PhotometricConfig(min_depth=0.1, max_depth=100.0)
#: Predicted units per metre, so that the baseline is what the stereo source takes for it.
UNIT = STEREO_UNIT / kitti_rig(SIZE).baseline_m


@pytest.fixture(scope="module")
def places(synth):
    return TripletPlaces(KittiRaw(synth))


@pytest.fixture(scope="module")
def frames(synth):
    """Two targets in each training drive."""
    return [frame for frame in load_split("synthdrive.train", synth).frames if frame.index in (5, 7)]


def camera_poses(places, frame):
    rows = np.loadtxt(places.raw.drive_dir(frame.drive) / "poses.txt").reshape(-1, 3, 4)
    return [np.vstack([row, [0, 0, 0, 1]]) for row in rows]


def older_to_newer(places, frame, source, mirror):
    """What a pose network should say of a pair, which it sees in temporal order."""
    poses = camera_poses(places, frame)
    older, newer = temporal_pair({0: frame.index, source: frame.index + source}, source)
    M = mirror @ np.linalg.inv(poses[newer]) @ poses[older] @ mirror
    angle = np.arccos((np.trace(M[:3, :3]) - 1) / 2)
    R = M[:3, :3]
    axis = np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]]) / (2 * np.sin(angle))
    vectors = (torch.tensor(v, dtype=torch.float32)[None] for v in (axis * angle, M[:3, 3] * UNIT))
    return Pose(*vectors, invert=source < 0)


def errors(places, frame, *, flip, factor=1.0, swapped=False):
    """Mean error by candidate, un-warped sources first, where the scene has a depth."""
    natives = {source: places.image(frame, source) for source in (0, *RULE.sources)}
    sample = make_triplet(
        natives, RULE, TripletDraw(flip), side=frame.side, intrinsics=places.intrinsics(frame), centred=False
    )
    batch = unpack(collate_triplets([sample]))
    mirror = np.diag([-1.0 if flip else 1.0, 1, 1, 1])
    poses = {source: older_to_newer(places, frame, source, mirror) for source in RULE.offsets}
    if swapped:
        poses = {source: poses[-source] for source in poses}
    path = places.raw.drive_dir(frame.drive) / f"dense_depth/image_0{frame.camera}/{frame.index:010d}.png"
    depth = read_depth_map(path).quantity()
    depth = torch.from_numpy(np.ascontiguousarray(depth[:, ::-1] if flip else depth))[None, None].float()
    seen = depth[0, 0] > 0
    disparity = depth_to_disparity(torch.where(depth > 0, depth, 80.0) * UNIT * factor)
    found = photometric_losses({0: disparity}, batch.views(poses), CONFIG)[0]
    return found.candidates[0][:, seen].mean(1).numpy()


@pytest.mark.parametrize("flip", [False, True])
def test_the_error_of_every_source_is_lowest_at_the_true_depth(places, frames, flip):
    assert len(frames) >= 4
    by_factor = {
        factor: np.mean([errors(places, frame, flip=flip, factor=factor) for frame in frames], 0)
        for factor in (0.5, 0.85, 1.0, 1.18, 2.0)
    }
    unwarped, warped = by_factor[1.0][:3], {factor: values[3:] for factor, values in by_factor.items()}
    assert (warped[1.0] < 0.75 * unwarped).all()
    for nearer, farther in ((1.0, 0.85), (0.85, 0.5), (1.0, 1.18), (1.18, 2.0)):
        assert (warped[nearer] < warped[farther]).all()


def test_motion_of_the_other_neighbour_is_worse_than_none(places, frames):
    """A pose that is inverted at the wrong time, or neighbours in the wrong order."""
    found = np.mean([errors(places, frame, flip=False, swapped=True) for frame in frames], 0)
    assert (found[3:5] > found[:2]).all()


def test_neighbours_are_the_frames_before_and_after(places, frames):
    for frame in frames:
        assert [source_key(frame, source).index - frame.index for source in RULE.offsets] == [-1, 1]
        forward = np.linalg.inv(camera_poses(places, frame)[frame.index]) @ camera_poses(places, frame)[frame.index + 1]
        assert forward[2, 3] > 0.3
