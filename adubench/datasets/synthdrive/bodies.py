"""Building blocks of the world: boxes, prisms, cylinders, ellipsoids, and the objects made of them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence

import numpy as np

from adubench.datasets.synthdrive.geometry import F64, Primitive

Colour = tuple[float, float, float]
Spot = tuple[float, float, float, float]  # x, y, z, yaw in the world

(FACADE, ROOF, CAR_BODY, CAR_CABIN, WHEEL, BARK, LEAVES, METAL, SIGN, FENCE, HEDGE, CLOTH, PLAIN, LAMP, RAIL) = range(
    1, 16
)


def _world(points: F64, spot: Spot) -> F64:
    x, y, z, yaw = spot
    cos, sin = math.cos(yaw), math.sin(yaw)
    turned = np.stack(
        [cos * points[:, 0] - sin * points[:, 1], sin * points[:, 0] + cos * points[:, 1], points[:, 2]], 1
    )
    out: F64 = turned + np.array([x, y, z])
    return out


def convex(spot: Spot, normals: F64, offsets: F64, vertices: F64, material: int, thing: int, colour: Colour,
           params: Sequence[float] = ()) -> Primitive:  # fmt: skip
    """Make a convex body from outward planes and bounding vertices in its local frame."""
    turned = _world(normals, (0, 0, 0, spot[3]))
    origin = np.array(spot[:3])
    filled = (*params, *(0.0,) * (6 - len(params)))
    return Primitive(
        "convex", material, thing, origin, spot[3], _world(vertices, spot), turned, offsets + turned @ origin,
        colour=colour, params=filled,
    )  # fmt: skip


def box(spot: Spot, half: tuple[float, float], height: float, material: int, thing: int, colour: Colour,
        params: Sequence[float] = ()) -> Primitive:  # fmt: skip
    """Make an upright box on its spot; faces +x, -x, +y, -y, +z, -z."""
    normals = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    offsets = np.array([half[0], half[0], half[1], half[1], height, 0.0])
    corners = np.array([[sx * half[0], sy * half[1], z] for sx in (-1, 1) for sy in (-1, 1) for z in (0.0, height)])
    return convex(spot, normals, offsets, corners, material, thing, colour, params)


def prism(spot: Spot, profile: Iterable[tuple[float, float]], half: float, axis: str, material: int, thing: int,
          colour: Colour, params: Sequence[float] = (), taper: float = 0.0) -> Primitive:  # fmt: skip
    """Extrude a convex counter-clockwise profile by +-half along `axis`.

    The profile lies in (x, z) for axis "y", in (y, z) for "x", in (x, y) for "z". Faces: the edges in order, then the
    two ends. With `taper` (axis "y") the ends lean inwards by that slope above z = profile's lowest point.
    """
    points = np.array(list(profile), float)
    edges = np.roll(points, -1, 0) - points
    normal2 = np.stack([edges[:, 1], -edges[:, 0]], 1)
    normal2 /= np.hypot(normal2[:, 0], normal2[:, 1])[:, None]
    place = {"y": (0, 2, 1), "x": (1, 2, 0), "z": (0, 1, 2)}[axis]
    count = len(points)
    normals = np.zeros((count + 2, 3))
    normals[:count, place[0]], normals[:count, place[1]] = normal2[:, 0], normal2[:, 1]
    slope = math.hypot(1.0, taper)
    for row, sign in ((count, 1.0), (count + 1, -1.0)):
        normals[row, place[2]] = sign / slope
        normals[row, 2] += taper / slope
    end = (half + taper * float(points[:, 1].min())) / slope
    offsets = np.concatenate([(normal2 * points).sum(1), [end, end]])
    vertices = np.zeros((2 * count, 3))
    for part, sign in ((slice(0, count), 1.0), (slice(count, None), -1.0)):
        vertices[part, place[0]], vertices[part, place[1]], vertices[part, place[2]] = (
            points[:, 0],
            points[:, 1],
            sign * half,
        )
    return convex(spot, normals, offsets, vertices, material, thing, colour, params)


def bevel(body: Primitive, half: float, width: float, cut: float) -> Primitive:
    """Cut the four upright corners of a car-like prism whose box is +-half by +-width."""
    slope = math.hypot(0.55, 1.0)
    local = np.array([[0.55 * sx, sy, 0.12] for sx in (-1, 1) for sy in (-1, 1)]) / slope
    offsets = np.full(4, (0.55 * half + width - cut * 0.5) / slope)
    turned = _world(local, (0, 0, 0, body.yaw))
    body.normals = np.concatenate([body.normals, turned])
    body.offsets = np.concatenate([body.offsets, offsets + turned @ body.origin])
    return body


def cylinder(spot: Spot, radius: float, height: float, material: int, thing: int, colour: Colour,
             params: Sequence[float] = ()) -> Primitive:  # fmt: skip
    """Make an upright open cylinder."""
    corners = np.array([[sx * radius, sy * radius, z] for sx in (-1, 1) for sy in (-1, 1) for z in (0.0, height)])
    out = Primitive(
        "cylinder", material, thing, np.array(spot[:3]), spot[3], _world(corners, spot), colour=colour,
        params=(*params, *(0.0,) * (6 - len(params))),
    )  # fmt: skip
    out.radii = np.array([radius, 0.0, height])
    return out


def ellipsoid(spot: Spot, radii: tuple[float, float, float], material: int, thing: int, colour: Colour,
              holes: float = 0.0) -> Primitive:  # fmt: skip
    """Make an ellipsoid around its spot; `holes` cuts leaves out."""
    corners = np.array(
        [[sx * radii[0], sy * radii[1], sz * radii[2]] for sx in (-1, 1) for sy in (-1, 1) for sz in (-1, 1)]
    )
    out = Primitive(
        "ellipsoid", material, thing, np.array(spot[:3]), spot[3], _world(corners, spot), colour=colour, holes=holes
    )
    out.radii = np.array(radii)
    return out


def _at(spot: Spot, x: float, y: float, z: float, yaw: float = 0.0) -> Spot:
    """Move a spot by local coordinates."""
    cos, sin = math.cos(spot[3]), math.sin(spot[3])
    return spot[0] + cos * x - sin * y, spot[1] + sin * x + cos * y, spot[2] + z, spot[3] + yaw


CAR_COLOURS: tuple[Colour, ...] = (
    (0.62, 0.63, 0.64), (0.03, 0.03, 0.035), (0.30, 0.31, 0.33), (0.45, 0.03, 0.03), (0.04, 0.09, 0.28),
    (0.75, 0.75, 0.73), (0.12, 0.13, 0.15), (0.10, 0.20, 0.14), (0.45, 0.36, 0.22), (0.10, 0.22, 0.40),
)  # fmt: skip


def car(spot: Spot, thing: int, dice: random.Random) -> list[Primitive]:
    """Make a car that looks along +x: hatchback, saloon or van."""
    shape = dice.random()
    length, width = 3.9 + 0.7 * dice.random(), 0.86 + 0.07 * dice.random()
    colour = CAR_COLOURS[int(dice.random() * len(CAR_COLOURS))]
    h, belt, top = length / 2, 0.90, 1.43 + 0.1 * dice.random()
    rear = (0.12, 0.45) if shape < 0.5 else (0.75, 1.35)
    front = (1.05, 1.85)
    if shape > 0.85:
        belt, top, rear, front, h = 1.05, 1.95, (0.03, 0.15), (0.35, 1.0), h + 0.25
    body = [(-h, 0.36), (-h + 0.12, 0.22), (h - 0.14, 0.22), (h, 0.40), (h - 0.04, 0.62), (h - 0.75, belt - 0.06),
            (0.1, belt + 0.02), (-h + 0.25, belt + 0.01), (-h + 0.02, belt - 0.12)]  # fmt: skip
    cabin = [(-h + rear[0], belt - 0.1), (h - front[0], belt - 0.1), (h - front[1], top), (-h + rear[1], top)]
    params = (h, width, belt, top, h - front[0], -h + rear[0])
    parts = [
        bevel(prism(spot, body, width, "y", CAR_BODY, thing, colour, params, taper=0.06), h, width, 0.20),
        bevel(prism(spot, cabin, width - 0.03, "y", CAR_CABIN, thing, colour, params, taper=0.22), h, width, 0.62),
    ]
    ring = [(0.31 * math.cos(2 * math.pi * k / 10), 0.31 * math.sin(2 * math.pi * k / 10)) for k in range(10)]
    axles = [_at(spot, x, 0, 0.31) for x in (0.6 * h, -0.62 * h)]
    return parts + [prism(axle, ring, width + 0.015, "y", WHEEL, thing, (0.02, 0.02, 0.02)) for axle in axles]


def tree(spot: Spot, thing: int, dice: random.Random, size: float = 1.0, far: bool = False) -> list[Primitive]:
    """Make a tree: a trunk and leafy clumps, fewer and simpler ones for trees that never come near (`far`)."""
    trunk, green = (1.7 + 0.7 * dice.random()) * size, 0.8 + 0.4 * dice.random()
    colour = (0.075 * green * (0.8 + 0.7 * dice.random()), 0.115 * green, 0.035 * green)
    parts = [cylinder(spot, 0.09 + 0.08 * dice.random(), trunk + 1.6, BARK, thing, (0.13, 0.10, 0.075))]
    reach = (1.35 + 0.45 * dice.random()) * size
    for k in range((3 if far else 5) + int(2 * dice.random())):
        angle = 2.4 * k + dice.random()
        out, up = (0.0, 1.75 * reach) if k == 0 else (0.72 * reach, (0.15 + 1.2 * dice.random()) * reach)
        radius = reach * (0.75 + 0.3 * dice.random())
        centre = _at(spot, out * math.cos(angle), out * math.sin(angle), trunk + 0.35 * reach + up, angle)
        parts += leafy(centre, (radius, radius * 0.92, radius * 0.95), thing, colour, far)
    return parts


def leafy(
    spot: Spot, radii: tuple[float, float, float], thing: int, colour: Colour, far: bool = False
) -> list[Primitive]:
    """Make a clump of leaves: a dense core in a loose shell, so that the outline is ragged; one shell if `far`."""
    if far:
        return [ellipsoid(spot, radii, LEAVES, thing, colour, holes=0.45)]
    inner = (radii[0] * 0.85, radii[1] * 0.85, radii[2] * 0.85)
    return [
        ellipsoid(spot, inner, LEAVES, thing, colour, holes=0.42),
        ellipsoid(spot, radii, LEAVES, thing, colour, holes=0.58),
    ]


def conifer(spot: Spot, thing: int, dice: random.Random, far: bool = False) -> list[Primitive]:
    """Make a slim tree (poplar, cypress)."""
    height = 6 + 4 * dice.random()
    colour = (0.035, 0.07 + 0.03 * dice.random(), 0.03)
    parts = [cylinder(spot, 0.13, 2.2, BARK, thing, (0.11, 0.085, 0.06))]
    for share, width in ((0.36, 1.25), (0.62, 0.95), (0.86, 0.55)):
        parts += leafy(_at(spot, 0, 0, height * share + 0.6), (width, width, height * 0.24), thing, colour, far)
    return parts


def street_light(spot: Spot, thing: int, reach: float = 1.6) -> list[Primitive]:
    """Make a street light whose arm reaches along +x."""
    grey = (0.30, 0.32, 0.32)
    return [
        cylinder(spot, 0.075, 6.6, METAL, thing, grey),
        box(_at(spot, reach / 2, 0, 6.55), (reach / 2, 0.04), 0.07, METAL, thing, grey),
        box(_at(spot, reach + 0.2, 0, 6.47), (0.32, 0.11), 0.12, LAMP, thing, (0.6, 0.6, 0.55)),
    ]


def sign(spot: Spot, thing: int, dice: random.Random) -> list[Primitive]:
    """Make a traffic sign that looks along -x (towards the driver)."""
    kind = int(dice.random() * 4)
    corners = (3, 16, 8, 4)[kind]
    radius, turn = (0.42, 0.33, 0.35, 0.40)[kind], (0.5, 0.0, 1 / 8, 0.0)[kind] * math.pi
    ring = [(radius * math.cos(turn + 2 * math.pi * k / corners), radius * math.sin(turn + 2 * math.pi * k / corners))
            for k in range(corners)]  # fmt: skip
    return [
        cylinder(spot, 0.035, 2.75, METAL, thing, (0.35, 0.36, 0.36)),
        prism(_at(spot, -0.06, 0, 2.45), ring, 0.012, "x", SIGN, thing, (0.7, 0.7, 0.7), (kind, radius)),
    ]


def person(spot: Spot, thing: int, dice: random.Random) -> list[Primitive]:
    """Make a standing person."""
    dark, warm = 0.04 + 0.22 * dice.random() ** 2, 0.7 + 0.6 * dice.random()
    coat = (dark * warm, dark, dark * (1.75 - 0.7 * warm))
    legs = (0.04, 0.045, 0.07 + 0.08 * dice.random())
    tall = 0.92 + 0.14 * dice.random()
    stride = 0.04 + 0.07 * dice.random()
    return [
        cylinder(_at(spot, stride, 0.09, 0), 0.085, 0.9 * tall, CLOTH, thing, legs),
        cylinder(_at(spot, -stride, -0.09, 0), 0.085, 0.9 * tall, CLOTH, thing, legs),
        ellipsoid(_at(spot, 0, 0, 1.13 * tall), (0.17, 0.24, 0.42 * tall), CLOTH, thing, coat),
        ellipsoid(_at(spot, 0.04, 0.24, 1.1 * tall), (0.075, 0.065, 0.33 * tall), CLOTH, thing, coat),
        ellipsoid(_at(spot, -0.04, -0.24, 1.1 * tall), (0.075, 0.065, 0.33 * tall), CLOTH, thing, coat),
        ellipsoid(_at(spot, 0.02, 0, 1.62 * tall), (0.105, 0.09, 0.135), CLOTH, thing, (0.42, 0.28, 0.2)),
    ]


def house(
    spot: Spot, thing: int, half: tuple[float, float], height: float, dice: random.Random, pitched: bool
) -> list[Primitive]:
    """Make a building; `pitched` adds a gable roof (ridge along x), otherwise a flat one with a parapet."""
    tone = 0.75 + 0.3 * dice.random()
    base: tuple[Colour, ...] = ((0.58, 0.52, 0.42), (0.50, 0.47, 0.43), (0.55, 0.40, 0.30), (0.42, 0.40, 0.38),
                                (0.60, 0.58, 0.52), (0.38, 0.22, 0.16), (0.52, 0.44, 0.30))  # fmt: skip
    pick = base[int(dice.random() * len(base))]
    colour = (pick[0] * tone, pick[1] * tone, pick[2] * tone)
    floor = 2.8 + 0.4 * dice.random() if pitched else 3.2 + 0.4 * dice.random()
    column = 2.1 + 1.0 * dice.random()
    style = float(int(dice.random() * 4) + (0 if pitched else 10))
    parts = [box(spot, half, height, FACADE, thing, colour, (half[0], half[1], height, floor, column, style))]
    if pitched:
        rise, over = half[1] * (0.6 + 0.3 * dice.random()), 0.35
        gable = [(-half[1] - over, -0.12), (half[1] + over, -0.12), (0.0, rise)]
        red = 0.6 + 0.6 * dice.random()
        roof: Colour = (0.24 * red, 0.10 * red, 0.065 * red) if dice.random() < 0.6 else (0.09, 0.09, 0.10)
        parts.append(
            prism(_at(spot, 0, 0, height), gable, half[0] + over, "x", ROOF, thing, roof, (half[0], half[1], rise))
        )
        parts.append(
            box(
                _at(spot, half[0] * 0.4, half[1] * 0.3, height),
                (0.3, 0.3),
                rise * 0.95,
                PLAIN,
                thing,
                (0.25, 0.13, 0.1),
            )
        )
    else:
        parts.append(
            box(_at(spot, 0, 0, height), (half[0] + 0.15, half[1] + 0.15), 0.45, PLAIN, thing, (0.3, 0.29, 0.28))
        )
    return parts
