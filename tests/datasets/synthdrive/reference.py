"""What test_synthdrive_reference.py compares with. Run as a script, it stores the present state as new reference."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from adubench.datasets.synthdrive.lightmap import bake
from adubench.datasets.synthdrive.renderer import render
from adubench.datasets.synthdrive.rig import kitti_rig
from adubench.datasets.synthdrive.scene import make_scene
from adubench.datasets.synthdrive.world import make_world

PATH = Path(__file__).parents[2] / "data" / "synthdrive" / "reference.npz"
DRIVES = (1, 2, 6)
STEP = 3


def views() -> dict[str, np.ndarray]:
    """Every third row and column of one picture and its depth for each of three drives."""
    out: dict[str, np.ndarray] = {}
    for number in DRIVES:
        world = make_world(1, number, 11, moving_cars=number == 1)
        light = bake(world, 0.25)
        scene = make_scene(world, 4)
        view = render(scene, kitti_rig((96, 320)), 4, 2, light.with_cars(scene, world.moving(4)))
        out[f"image_{number}"] = view.image[::STEP, ::STEP]
        out[f"depth_{number}"] = view.depth[::STEP, ::STEP]
    return out


def rounded(depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth below 80 m in units of 1/16 m, and which values are far enough from a rounding border to be sure of."""
    scaled = depth.astype(np.float64) * 16
    sure = (np.abs(scaled - np.floor(scaled) - 0.5) > 0.1) & (depth > 0) & (depth < 80)
    return np.rint(scaled).astype(np.int32), sure


def checksum(codes: np.ndarray, sure: np.ndarray) -> str:
    """SHA-256 of the sure codes."""
    return hashlib.sha256(codes[sure].astype("<i4").tobytes()).hexdigest()


if __name__ == "__main__":
    PATH.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(PATH, **views())
