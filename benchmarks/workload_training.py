"""Workload W2: the frames of W1 with colour images, as PNG and as JPEG (quality 92, 4:2:0), in KITTI's layout.

Images are shaded by depth, textured at several scales and noisy, so that their files are about as large as KITTI's:
sizes are asserted, because decoding time follows them.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.workload import ground_truth_codes, prediction, scene

EXPECTED_KB = {"png": 840, "jpg": 143, "gt": 208}
DRIVE = "2011_09_26_drive_0001"
# Grey levels: texture that all channels share (scale in pixels, strength), grain of the luminance, grain per channel.
TEXTURE = ((1, 8), (3, 10), (12, 14))
LUMINANCE, CHROMA = 5.0, 2.0


@dataclass(frozen=True)
class TrainingWorkload:
    """Roots and a list: `png/` and `jpg/` are raw roots (layout C holds the maps), `list.txt` names the frames."""

    root: Path
    n: int

    @property
    def listed(self) -> str:
        return str(self.root / "list.txt")


def colour_image(depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 [H, W, 3] for a depth map."""
    from scipy import ndimage

    shade = 60 + 127 * np.exp(-depth / 60)
    for scale, strength in TEXTURE:
        shade += strength * scale * ndimage.gaussian_filter(rng.normal(0, 1, depth.shape), scale)
    shade += rng.normal(0, LUMINANCE, depth.shape)
    image = shade[..., None] * np.array([1.0, 0.97, 0.9]) + rng.normal(0, CHROMA, (*depth.shape, 3))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def make(root: Path, n: int = 24, seed: int = 0) -> TrainingWorkload:
    """Write W2 below `root` (reused when complete) and check it against the description."""
    work = TrainingWorkload(root, n)
    done = root / f"complete-{n}-{seed}"
    if done.exists():
        return work
    rng, paint = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    sizes: dict[str, list[int]] = {kind: [] for kind in EXPECTED_KB}
    for i in range(n):
        depth = scene(rng)
        codes = ground_truth_codes(depth, rng)
        prediction(depth, rng)  # W1 draws it between two frames
        picture = Image.fromarray(colour_image(depth, paint))
        data = {
            "png": _encoded(picture, "PNG"),
            "jpg": _encoded(picture, "JPEG", quality=92, subsampling=2),
            "gt": _encoded(Image.fromarray(codes), "PNG", compress_level=6),
        }
        for kind in ("png", "jpg"):
            drive = root / kind / DRIVE[:10] / f"{DRIVE}_sync"
            _write(drive / "image_02" / "data" / f"{i + 5:010d}.{kind}", data[kind])
            _write(drive / "proj_depth" / "groundtruth" / "image_02" / f"{i + 5:010d}.png", data["gt"])
        for kind, encoded in data.items():
            sizes[kind].append(len(encoded))
    for kind, expected in EXPECTED_KB.items():
        got = np.mean(sizes[kind]) / 1000
        assert abs(got / expected - 1) < 0.15, f"{kind}: {got:.0f} KB, expected about {expected}"
    (root / "list.txt").write_text("".join(f"{DRIVE[:10]}/{DRIVE}_sync {i + 5} l\n" for i in range(n)))
    done.touch()
    return work


def _encoded(image: Image.Image, form: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
