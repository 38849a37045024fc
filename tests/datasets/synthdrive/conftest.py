"""Small data sets that the tests of this folder share."""

from __future__ import annotations

import pytest

from adubench.datasets.synthdrive import SynthDriveInfo, write_dataset

SIZE = (64, 208)


@pytest.fixture(scope="session")
def kitti(tmp_path_factory: pytest.TempPathFactory) -> SynthDriveInfo:
    root = tmp_path_factory.mktemp("synthdrive") / "kitti"
    return write_dataset(root, drives=2, frames=12, size=SIZE, seed=3)


@pytest.fixture(scope="session")
def stereo(tmp_path_factory: pytest.TempPathFactory) -> SynthDriveInfo:
    root = tmp_path_factory.mktemp("synthdrive") / "drivingstereo"
    return write_dataset(root, drives=2, frames=11, size=SIZE, seed=3, layout="drivingstereo")
