"""SynthDrive: the embedded data set, a procedural driving world written in the layouts of KITTI and DrivingStereo."""

from __future__ import annotations

from adubench.datasets.synthdrive.info import SynthDriveInfo, read_info
from adubench.datasets.synthdrive.writer import write_dataset

__all__ = ["SynthDriveInfo", "read_info", "write_dataset"]
