"""One frame of a world made ready for casting: bodies in tables, nearest first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adubench.datasets.synthdrive.bodies import LEAVES
from adubench.datasets.synthdrive.geometry import (
    F64,
    FACE_BITS,
    SKY,
    Hits,
    Primitive,
    RayGrid,
    cast_convex,
    cast_quadric,
)
from adubench.datasets.synthdrive.noise import F32
from adubench.datasets.synthdrive.road import KERB_FACE, VERGE_FACE, Road, cast_ground
from adubench.datasets.synthdrive.world import AHEAD_M, CLASS_ID, World

MAX_DEPTH_M = 65535 / 256


@dataclass(frozen=True, slots=True)
class Tables:
    """Attributes of the bodies of a frame, one row each.

    Attributes:
        material: int16. thing: int32. origin: float32 [n, 3]. cos, sin: of the yaw. colour: [n, 3]. params: [n, 6].
        normals: float32 [n, 32, 3], faces of convex bodies. radii: [n, 3]. round_body: 0 convex, 1 ellipsoid, 2
            cylinder. lit: float32, 0 in the shadow of a building, else 1.
    """

    material: NDArray[np.int16]
    thing: NDArray[np.int32]
    origin: F32
    cos: F32
    sin: F32
    colour: F32
    params: F32
    normals: F32
    radii: F32
    round_body: NDArray[np.int8]
    lit: F32


@dataclass(frozen=True, slots=True)
class Scene:
    """A world at one frame."""

    world: World
    bodies: list[Primitive]
    tables: Tables
    vertices: F64

    @property
    def road(self) -> Road:
        """The road of the world."""
        return self.world.road

    def cast(self, grid: RayGrid, seen: NDArray[np.bool_] | None = None) -> Hits:
        """Meet the world with every ray of a grid; with the bodies marked in `seen` only, if it is given."""
        shape = grid.shape
        hits = Hits(np.zeros(shape, np.float32), np.full(shape, SKY, np.int32))
        cast_ground(grid, self.world.road, hits)
        boxes, nearest = grid.windows(self.vertices)
        wanted = (boxes[:, 0] < boxes[:, 1]) & (boxes[:, 2] < boxes[:, 3])
        if seen is not None:
            wanted &= seen
        for number in np.flatnonzero(wanted):
            body = self.bodies[number]
            r0, r1, c0, c1 = box = tuple(boxes[number].tolist())
            if hits.w[r0:r1, c0:c1].min() * nearest[number] >= 1:  # hidden by what is nearer
                continue
            if body.kind == "convex":
                cast_convex(grid, body, int(number), hits, box)
            elif body.kind != "ground":
                cast_quadric(grid, body, int(number), hits, box)
        return hits

    def worth_refining(self, hits: Hits) -> NDArray[np.bool_]:
        """Bodies that finer rays may meet: those met already, and all thin ones."""
        out = np.ones(len(self.bodies), np.bool_)
        out[self.tables.material == LEAVES] = False
        out[np.unique(hits.code[hits.code != SKY] >> FACE_BITS)] = True
        return out

    def things(self, hits: Hits) -> NDArray[np.uint16]:
        """Class and instance of each ray: 256 * class + thing number modulo 256 (0 for things without instances)."""
        body, face = hits.code >> FACE_BITS, hits.code & ((1 << FACE_BITS) - 1)
        thing = self.tables.thing[body]
        out = (np.array(self.world.classes, np.int32) * 256).take(thing) + (thing & 255)
        ground = body == 0
        verge = CLASS_ID["pavement"] if self.world.road.walk > 0 else CLASS_ID["terrain"]
        out[ground & (face == VERGE_FACE)] = verge * 256
        out[ground & (face == KERB_FACE)] = CLASS_ID["kerb"] * 256
        out[hits.code == SKY] = CLASS_ID["sky"] * 256
        return np.asarray(out, np.uint16)


def make_scene(world: World, frame: int) -> Scene:
    """Collect what may be seen from frame `frame`: bodies up to AHEAD_M ahead and not behind the car."""
    eye = world.poses[frame].position[0]
    kept = [world.primitives[0]]
    for body in [*world.primitives[1:], *world.moving(frame)]:
        x = body.vertices[:, 0]
        if x.max() > eye - 1 and x.min() < eye + AHEAD_M:
            kept.append(body)
    position = world.poses[frame].position
    kept[1:] = sorted(kept[1:], key=lambda body: float(((body.vertices - position) ** 2).sum(1).min()))
    return Scene(world, kept, _tables(kept), _padded(kept))


def _padded(bodies: list[Primitive]) -> F64:
    """Vertices of all bodies [n, k, 3], short lists filled up with their last vertex; the ground's lie far below."""
    size = max(len(body.vertices) for body in bodies)
    rows = [np.concatenate([b.vertices, np.repeat(b.vertices[-1:], size - len(b.vertices), 0)]) for b in bodies]
    return np.stack(rows)


def _tables(bodies: list[Primitive]) -> Tables:
    count = len(bodies)
    normals = np.zeros((count, 1 << FACE_BITS, 3), np.float32)
    for number, body in enumerate(bodies):
        normals[number, : len(body.normals)] = body.normals
    yaw = np.array([body.yaw for body in bodies])
    kinds = {"ground": 0, "convex": 0, "ellipsoid": 1, "cylinder": 2}
    return Tables(
        np.array([body.material for body in bodies], np.int16),
        np.array([body.thing for body in bodies], np.int32),
        np.array([body.origin for body in bodies], np.float32),
        np.cos(yaw).astype(np.float32),
        np.sin(yaw).astype(np.float32),
        np.array([body.colour for body in bodies], np.float32),
        np.array([body.params for body in bodies], np.float32),
        normals,
        np.array([body.radii for body in bodies], np.float32),
        np.array([kinds[body.kind] for body in bodies], np.int8),
        np.array([body.lit for body in bodies], np.float32),
    )


def depth_map(hits: Hits) -> F32:
    """Exact depth in metres, float32 [H, W]; 0 for the sky and beyond what 16 bits hold (255.996 m)."""
    near = hits.w > np.float32(1 / MAX_DEPTH_M)
    out: F32 = np.where(near, 1 / np.where(near, hits.w, 1), 0).astype(np.float32)
    return out
