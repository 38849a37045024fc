"""What the photometric error says of wrong motion, at constant depth, with and without automasking (SynthDrive).

A pose network starts near no motion, a depth network near constant depth. Where the error falls from there, training
goes: along the true translation, or towards a rotation that never happened.

adubench data synth SYNTH --drives 16 --frames 24
python -m benchmarks.motion_landscape SYNTH
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adubench.datasets.kitti import KittiRaw
from adubench.datasets.splits import load_split
from adubench.datasets.triplets import TripletPlaces, TripletRule, scaled_intrinsics, source_key, with_sources
from adubench.io.depth_png import read_depth_map
from adubench.training.photometric import photometric_error
from adubench.training.triplet_data import TripletSet, collate_triplets, unpack
from adubench.training.view_synthesis import Cameras, pose_matrix, synthesise
from benchmarks.make_tables import markdown, rewrite

RESULTS = Path(__file__).parent / "results" / "motion_landscape.json"
PAGE = Path(__file__).parents[1] / "docs" / "self_supervised.md"
SIZE, OFFSETS, FRAMES = (64, 128), (-1, 1), 8
SHARES = (0.0, 0.2, 0.35, 0.5, 1.0)
TURNS = (("yaw", 1, 1.2), ("yaw", 1, -1.2), ("pitch", 0, 1.2), ("pitch", 0, -1.2))


def measure(root: Path) -> dict[str, Any]:
    """Mean error over frames spread over the training drives: (without, with automasking) by motion."""
    places = TripletPlaces(KittiRaw(root))
    rule = TripletRule(size=SIZE, offsets=OFFSETS, stereo=False, per_drive_intrinsics=True, augment=False)
    usable, _ = with_sources(places, load_split("synthdrive.train", root).frames, rule)
    data = TripletSet(places, usable, rule, 0)
    indices = range(5, len(usable), len(usable) // FRAMES)[:FRAMES]
    frames = [usable[i] for i in indices]
    batch = unpack(collate_triplets([data.sample(0, i) for i in indices]))
    K = torch.from_numpy(scaled_intrinsics(places.intrinsics(frames[0]), SIZE, 0))[None].expand(FRAMES, 4, 4)
    cameras = Cameras(K, torch.linalg.inv(K))
    median = [np.median(depth[depth > 0]) for depth in (_dense(places, frame) for frame in frames)]
    # In units of the median depth, which a depth of one stands for.
    motion = np.stack([_motion(places, frame)[:3, 3] / m for frame, m in zip(frames, median, strict=True)])
    translation, depth = torch.from_numpy(motion).float(), torch.ones(FRAMES, 1, *SIZE)
    still = torch.cat([photometric_error(batch.colour[o][0], batch.colour[0][0]) for o in OFFSETS], 1).min(1)[0]

    def errors(axisangle: Tensor, share: float) -> tuple[float, float]:
        found = []
        for offset in OFFSETS:
            pose = pose_matrix(axisangle.expand(FRAMES, 3), translation * share, invert=offset < 0)
            warped, _ = synthesise(batch.colour[offset][0], depth, pose, cameras)
            found.append(photometric_error(warped, batch.colour[0][0]))
        plain = torch.cat(found, 1).min(1)[0]
        return float(plain.mean()), float(torch.minimum(plain, still).mean())

    none = torch.zeros(1, 3)
    rows = {f"{share:g} of the true translation": errors(none, share) for share in SHARES}
    for name, axis, degrees in TURNS:
        turn = none.clone()
        turn[0, axis] = float(np.radians(degrees))
        rows[f"no translation, false {name} of {degrees:+g} degrees"] = errors(turn, 0.0)
    return {"size": SIZE, "frames": FRAMES, "error": rows}


def _dense(places: TripletPlaces, frame: Any) -> np.ndarray:
    folder = places.raw.drive_dir(frame.drive) / "dense_depth" / f"image_0{frame.camera}"
    return np.asarray(read_depth_map(folder / f"{frame.index:010d}.png").quantity())


def _motion(places: TripletPlaces, frame: Any) -> np.ndarray:
    """Map the target camera to the next one, 4x4 in metres."""
    rows = np.loadtxt(places.raw.drive_dir(frame.drive) / "poses.txt").reshape(-1, 3, 4)
    here, there = (np.vstack([rows[f.index], [0, 0, 0, 1]]) for f in (frame, source_key(frame, 1)))
    return np.asarray(np.linalg.inv(there) @ here)


def table(report: dict[str, Any]) -> dict[str, str]:
    """Marked block of docs/self_supervised.md."""
    rows = [(name, *(f"{value:.3f}" for value in values)) for name, values in report["error"].items()]
    return {"motion-landscape": markdown(("Motion that is assumed", "without automasking", "with automasking"), rows)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, nargs="?", help="of a SynthDrive; without, only the page is written")
    options = parser.parse_args()
    if options.root is not None:
        torch.set_num_threads(1)
        RESULTS.write_text(json.dumps(measure(options.root), indent=1) + "\n", encoding="utf-8")
    rewrite(PAGE, table(json.loads(RESULTS.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
