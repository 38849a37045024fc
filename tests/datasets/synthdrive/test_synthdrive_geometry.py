"""Casting against a slow, plain intersection of single rays."""

from __future__ import annotations

import random

import numpy as np
import pytest

from adubench.datasets.synthdrive import bodies
from adubench.datasets.synthdrive.geometry import FACE_BITS, SKY, Primitive, RayGrid
from adubench.datasets.synthdrive.rig import kitti_rig
from adubench.datasets.synthdrive.road import CAMERA_HEIGHT, KERB_HEIGHT, Pose, Road
from adubench.datasets.synthdrive.scene import make_scene
from adubench.datasets.synthdrive.world import World, make_world

RIG = kitti_rig((96, 320))
POSE = Pose(np.array([0.0, 0.0, CAMERA_HEIGHT]), np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]))
GRIDS = {"camera": RIG.camera_rays(POSE, 2), "scanner": RIG.scanner_rays(POSE)}


def _scene(parts: list[Primitive]):
    world = make_world(0, 1, 11)
    bare = World("city", 1, 0, Road((), 5.0, 2.0), world.weather, [POSE], [world.primitives[0], *parts], [1, 9])
    return make_scene(bare, 0)


def _nearest(body: Primitive, origin: np.ndarray, ray: np.ndarray) -> float:
    """Smallest ray parameter > 0 at which a float64 ray enters a body; inf when it does not."""
    if body.kind == "convex":
        rate, gap = body.normals @ ray, body.normals @ origin - body.offsets
        with np.errstate(divide="ignore", invalid="ignore"):
            t = -gap / rate
        enter, leave = t[rate < 0].max(initial=0), t[rate > 0].min(initial=np.inf)
        return float(enter) if enter < leave else np.inf
    cos, sin = np.cos(body.yaw), np.sin(body.yaw)
    turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1.0]])
    o, d = turn @ (origin - body.origin), turn @ ray
    flat = body.kind == "cylinder"
    r = np.array([body.radii[0]] * 2) if flat else body.radii
    p, q = o[: len(r)] / r, d[: len(r)] / r
    disc = (p @ q) ** 2 - (q @ q) * (p @ p - 1)
    if disc <= 0:
        return np.inf
    t = (-(p @ q) - np.sqrt(disc)) / (q @ q)
    if t <= 0 or (flat and not 0 <= o[2] + t * d[2] <= body.radii[2]):
        return np.inf
    return float(t)


def _parts() -> list[Primitive]:
    dice = random.Random(5)
    parts = [*bodies.car((9.0, 2.5, 0.0, 0.4), 1, dice), *bodies.sign((7.0, -3.0, 0.12, 0.1), 1, dice)]
    parts += bodies.house((25.0, 9.0, 0.12, -0.2), 1, (6.0, 4.0), 5.0, dice, pitched=True)
    parts += bodies.street_light((6.0, 4.0, 0.0, -1.2), 1)
    parts.append(bodies.ellipsoid((14.0, -4.0, 3.0, 0.7), (1.5, 0.8, 2.0), bodies.CLOTH, 1, (0.1, 0.1, 0.1)))
    parts.append(bodies.box((1.0, -2.0, 0.0, 0.0), (6.0, 0.5), 1.0, bodies.PLAIN, 1, (0.1, 0.1, 0.1)))  # beside the eye
    return parts


@pytest.mark.parametrize("kind", ["camera", "scanner"])
def test_cast_agrees_with_single_rays(kind: str) -> None:
    grid, scene = GRIDS[kind], _scene(_parts())
    hits = scene.cast(grid)
    rng = np.random.default_rng(1)
    rows, cols = rng.integers(0, hits.w.shape[0], 1500), rng.integers(0, hits.w.shape[1], 1500)
    wrong = met = 0
    for v, u in zip(rows, cols, strict=True):
        ray = grid.col[:, u].astype(float) + grid.row[:, v]
        expected = min(_nearest(body, grid.origin, ray) for body in scene.bodies[1:])
        got = 1 / hits.w[v, u] if hits.w[v, u] > 0 else np.inf
        body = hits.code[v, u] >> FACE_BITS
        if np.isfinite(expected):
            met += 1
        if body > 0 or (np.isfinite(expected) and expected < got):
            wrong += not np.isclose(got, expected, rtol=1e-4)
    assert met > 250
    assert wrong <= 2  # a ray along a silhouette may fall on either side


@pytest.mark.parametrize("kind", ["camera", "scanner"])
def test_screen_boxes_contain_their_bodies(kind: str) -> None:
    """A body alone, cast in its own box, is as large as cast over the whole picture."""
    grid = GRIDS[kind]
    for body in _parts():
        scene = _scene([body])
        boxes, _ = grid.windows(scene.vertices)
        tight = scene.cast(grid).code >> FACE_BITS == 1
        open_grid = RayGrid(grid.origin, grid.axes, grid.col, grid.row, grid.col_key, grid.row_key, grid.scanner)
        whole = _Whole(open_grid)
        loose = scene.cast(whole).code >> FACE_BITS == 1
        assert (tight == loose).all(), (body.kind, body.material, boxes[1])


class _Whole(RayGrid):
    """A grid that never narrows the search."""

    __slots__ = ()

    def __init__(self, grid: RayGrid) -> None:
        super().__init__(grid.origin, grid.axes, grid.col, grid.row, grid.col_key, grid.row_key, grid.scanner)

    def windows(self, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes = np.tile([0, self.shape[0], 0, self.shape[1]], (len(vertices), 1))
        boxes[0] = 0
        return boxes, np.full(len(vertices), 1e-3)


def test_ground_has_a_kerb() -> None:
    grid, scene = GRIDS["camera"], _scene([])
    hits = scene.cast(grid)
    seen = hits.code != SKY
    v, u = np.nonzero(seen)
    point = grid.origin[:, None] + (grid.col[:, u] + grid.row[:, v]) / hits.w[v, u]
    face = hits.code[v, u] & 31
    road, verge, kerb = (point[:, face == k] for k in range(3))
    near = np.abs(road[0]) < 100
    assert np.abs(road[2][near]).max() < 1e-3
    assert np.abs(road[1]).max() <= 5.0 + 1e-2
    assert np.abs(verge[2][np.abs(verge[0]) < 100] - KERB_HEIGHT).max() < 1e-3
    assert np.abs(verge[1]).min() >= 5.0 - 1e-2
    assert kerb.shape[1] > 0
    assert np.allclose(np.abs(kerb[1]), 5.0, atol=1e-2)
    assert not seen[: int(RIG.cy)].any()


def test_leaves_let_some_rays_through_and_look_alike_from_elsewhere() -> None:
    clump = bodies.ellipsoid((10.0, 0.0, 3.0, 0.0), (2.0, 2.0, 1.5), bodies.LEAVES, 1, (0.1, 0.1, 0.1), holes=0.5)
    solid = bodies.ellipsoid((10.0, 0.0, 3.0, 0.0), (2.0, 2.0, 1.5), bodies.LEAVES, 1, (0.1, 0.1, 0.1))
    grid = GRIDS["camera"]
    share = ((_scene([clump]).cast(grid).code >> FACE_BITS) == 1).sum() / (
        (_scene([solid]).cast(grid).code >> FACE_BITS) == 1
    ).sum()
    assert 0.4 < share < 0.98
