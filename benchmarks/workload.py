"""Workload W1: 64 frames of a road at KITTI's size, generated from a seed.

Depth comes from a ground plane, side walls and boxes; ground truth is sampled along accumulated scan lines (20 % of
the pixels); predictions carry a smooth multiplicative error of a few percent. File sizes are asserted, because decoding
time follows them.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

H, W, FOCAL, CX, CY, CAMERA_HEIGHT = 375, 1242, 721.5, 609.6, 172.9, 1.65
EXPECTED_KB = {"gt": 208, "pred_default": 388, "pred_level0": 933, "pred_level6": 241}


@dataclass(frozen=True)
class Workload:
    """Folders of W1: `gt/`, `pred_default/`, `pred_level0/`, `pred_level6/`, with equal names."""

    root: Path
    names: tuple[str, ...]

    def folder(self, kind: str) -> Path:
        return self.root / kind


def scene(rng: np.random.Generator) -> np.ndarray:
    """Dense depth [H, W] float64 in metres; 200 where there is sky."""
    x = (np.arange(W) - CX) / FOCAL
    y = (np.arange(H) - CY) / FOCAL
    with np.errstate(divide="ignore"):
        ground = np.where(y > 0, CAMERA_HEIGHT / np.maximum(y, 1e-9), np.inf)
    depth = np.broadcast_to(np.minimum(ground, 200.0)[:, None], (H, W)).copy()
    for side in (-1, 1):
        lateral, height = rng.uniform(6, 14), rng.uniform(4, 10)
        with np.errstate(divide="ignore"):
            wall = np.where(side * x > 0, lateral / np.maximum(side * x, 1e-9), np.inf)
        wall = np.broadcast_to(wall[None, :], (H, W))
        hit = (wall < depth) & (-y[:, None] * wall < height) & (wall < 120)
        depth[hit] = wall[hit]
    for _ in range(rng.integers(8, 23)):
        z = rng.uniform(6, 60)
        left, width, height = rng.uniform(-8, 8), rng.uniform(0.6, 3.5), rng.uniform(1.2, 3.5)
        c0, c1 = (int(np.clip(FOCAL * v / z + CX, 0, W)) for v in (left, left + width))
        r0, r1 = (int(np.clip(FOCAL * v / z + CY, 0, H)) for v in (CAMERA_HEIGHT - height, CAMERA_HEIGHT))
        patch = depth[r0:r1, c0:c1]
        face = z + np.linspace(0, rng.uniform(-0.5, 0.5), c1 - c0)[None, :] if c1 > c0 else z
        np.minimum(patch, face, out=patch)
    return depth


def ground_truth_codes(depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint16 [H, W]: four passes of scan lines 3.7 rows apart, horizontal keep rate 25-52 %, holes, no depth edges."""
    valid = np.zeros((H, W), bool)
    for scan in range(4):
        rows = np.floor(118 + rng.uniform(0, 2) + 3.7 * (np.arange(80) + scan / 4)).astype(int)
        rows = rows[rows < H]
        keep = rng.uniform(0.25, 0.52)
        valid[rows] |= rng.random((rows.size, W)) < keep
    for _ in range(60):
        r, c = rng.integers(100, H), rng.integers(0, W)
        valid[r : r + rng.integers(8, 36), c : c + rng.integers(16, 90)] = False
    relative = np.abs(np.diff(depth, axis=1, prepend=depth[:, :1])) > 0.05 * depth
    edges = relative | np.roll(relative, 1, axis=1) | np.roll(relative, -1, axis=1)
    noisy = depth + rng.normal(0, 0.015, depth.shape) * (1 + depth / 100)
    return np.where(valid & ~edges & (depth < 85), np.rint(noisy * 256), 0).astype(np.uint16)


def prediction(depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """float32 [H, W] in metres: smooth multiplicative error on a quarter-resolution grid, clipped to [0.001, 80]."""
    from scipy import ndimage

    coarse = ndimage.gaussian_filter(rng.normal(0, 1, (H // 4 + 2, W // 4 + 2)), 2.5)
    coarse *= rng.uniform(0.02, 0.05) / coarse.std()
    smooth = ndimage.zoom(coarse, 4, order=1)[:H, :W]
    return np.clip(depth * np.exp(smooth), 0.001, 80).astype(np.float32)


def make(root: Path, n: int = 64, seed: int = 0) -> Workload:
    """Write W1 below `root` (reused when complete) and check it against the description."""
    import cv2

    names = tuple(f"drive_{i * 8 // n:02d}/{i:010d}" for i in range(n))
    work = Workload(root, names)
    if (root / f"complete-{n}-{seed}").exists():
        return work
    rng = np.random.default_rng(seed)
    sizes: dict[str, list[int]] = {kind: [] for kind in EXPECTED_KB}
    fractions = []
    for name in names:
        depth = scene(rng)
        codes = ground_truth_codes(depth, rng)
        fractions.append((codes > 0).mean())
        pred = np.rint(prediction(depth, rng) * 256).astype(np.uint16)
        data = {"gt": _pillow_png(codes), "pred_default": _cv2_png(cv2, pred)}
        data |= {f"pred_level{i}": _cv2_png(cv2, pred, i) for i in (0, 6)}
        for kind, encoded in data.items():
            path = root / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded)
            sizes[kind].append(len(encoded))
    assert 0.18 < np.mean(fractions) < 0.22, f"valid fraction {np.mean(fractions):.3f}"
    for kind, expected in EXPECTED_KB.items():
        got = np.mean(sizes[kind]) / 1000
        assert abs(got / expected - 1) < 0.15, f"{kind}: {got:.0f} KB, expected about {expected}"
    (root / f"complete-{n}-{seed}").touch()
    return work


def _pillow_png(codes: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(codes).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _cv2_png(cv2, codes: np.ndarray, level: int | None = None) -> bytes:
    flags = [] if level is None else [cv2.IMWRITE_PNG_COMPRESSION, level]
    return cv2.imencode(".png", codes, flags)[1].tobytes()
