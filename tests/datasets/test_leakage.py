"""What evaluation splits share with training sets."""

import pytest

from adubench.datasets.frames import kitti_frame
from adubench.datasets.leakage import known_leaks, overlap, training_set
from adubench.datasets.list_files import write_lines
from adubench.datasets.splits import load_split

# training, evaluation, images on shared drives, shared images
FACTS = [
    ("kitti_official.train", "eigen", 522, 491),
    ("kitti_official.train", "eigen_benchmark", 491, 491),
    ("kitti_official.val", "eigen", 175, 161),
    ("eigen_train", "eigen", 0, 0),
    ("eigen_full.train", "eigen", 0, 0),
    ("eigen_zhou.train", "eigen", 0, 0),
    ("kitti_official.train", "official", 0, 0),
]


@pytest.mark.parametrize(("train", "test", "on_drives", "shared"), FACTS)
def test_counts(train, test, on_drives, shared):
    leak = overlap(training_set(train), load_split(test))
    assert (leak.on_shared_drives, len(leak.shared_frames)) == (on_drives, shared)
    assert leak.any == bool(on_drives)
    assert leak.partners == ()


def test_eigen_on_official_training_drives_is_said():
    messages = overlap(training_set("kitti_official.train"), load_split("eigen")).messages()
    assert messages[0] == "522 of 697 Eigen test images lie on official training drives"
    assert messages[1].startswith("491 of 697 Eigen test images are official training images")


def test_selection_images_in_eigen_training():
    leak = overlap(training_set("eigen_train"), load_split("official"))
    assert len(leak.shared_frames) == 103
    assert leak.to_dict()["shared_images"] == 103
    assert len(leak.shared_drives) == 5
    assert len(overlap(load_split("eigen"), load_split("official")).shared_frames) == 7


def test_stereo_partners_leak_in_zhou():
    leak = overlap(training_set("eigen_zhou.train"), load_split("eigen_zhou.val"))
    assert not leak.shared_frames
    expected = {(f.drive, f.index) for f in load_split("eigen_zhou.train").frames}
    assert len(leak.partners) == sum((f.drive, f.index) in expected for f in load_split("eigen_zhou.val").frames)
    assert len(leak.partners) > 3000


def test_training_list_file(tmp_path):
    eigen = load_split("eigen")
    path = tmp_path / "train.txt"
    path.write_text(write_lines([*eigen.frames[:3], kitti_frame(eigen.frames[0].drive, 1)], "toolbox2"))
    leak = overlap(training_set(str(path)), eigen)
    assert leak.shared_frames == eigen.frames[:3]
    assert leak.on_shared_drives == 25
    assert str(path) in leak.messages()[0]


def test_nothing_shared_says_nothing():
    leak = overlap(training_set("eigen_train"), load_split("eigen"))
    assert leak.messages() == ()


def test_known_leaks():
    assert [leak.train for leak in known_leaks(load_split("eigen"))] == ["kitti_official.train"]
    assert [leak.train for leak in known_leaks(load_split("official"))] == ["eigen_train"]
