"""A procedural street: what stands where, in which light. Everything follows from the seed and the drive's number."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import numpy as np

from adubench.datasets.synthdrive import bodies
from adubench.datasets.synthdrive.bodies import Spot
from adubench.datasets.synthdrive.geometry import Primitive, meets
from adubench.datasets.synthdrive.road import KERB_HEIGHT, LANE, Pose, Road, drive_along, make_road

CLASSES = (
    "sky", "road", "pavement", "terrain", "building", "fence", "pole", "sign", "vegetation", "car", "person", "kerb",
)  # fmt: skip
CLASS_ID = {name: number for number, name in enumerate(CLASSES)}
AHEAD_M = 125.0
SCENES = ("city", "residential", "country")


@dataclass(frozen=True, slots=True)
class Weather:
    """Light of a drive.

    Attributes:
        sun: [3] unit vector towards the sun. sun_colour, sky_colour, haze_colour: linear RGB.
        haze: extinction per metre. clouds: 0..1. exposure: factor before tone mapping. noise: in grey levels.
        weak: whether it is a weak-light drive (street lights and head lights are on).
    """

    sun: tuple[float, float, float]
    sun_colour: tuple[float, float, float]
    sky_colour: tuple[float, float, float]
    haze_colour: tuple[float, float, float]
    haze: float
    clouds: float
    exposure: float
    noise: float
    weak: bool


@dataclass(frozen=True, slots=True)
class Mover:
    """A moving car: metres per frame along the road (negative: oncoming), where it starts, and its shape's seed."""

    start: float
    speed: float
    lateral: float
    thing: int
    shape: int


@dataclass(slots=True)
class World:
    """Everything a drive sees.

    Attributes:
        scene: one of SCENES. number: the drive's number. seed: of this drive.
        primitives: static bodies; number 0 is a placeholder for the ground.
        classes: class number of each thing (thing 0: the ground).
    """

    scene: str
    number: int
    seed: int
    road: Road
    weather: Weather
    poses: list[Pose]
    primitives: list[Primitive] = field(default_factory=list)
    classes: list[int] = field(default_factory=lambda: [CLASS_ID["road"]])
    movers: list[Mover] = field(default_factory=list)

    def moving(self, frame: int) -> list[Primitive]:
        """Bodies of the moving cars at a frame."""
        out: list[Primitive] = []
        for mover in self.movers:
            x, y, yaw = self.road.place(mover.start + mover.speed * frame, mover.lateral)
            spot = (x, y, 0.0, yaw if mover.speed > 0 else yaw + math.pi)
            out.extend(bodies.car(spot, mover.thing, random.Random(mover.shape)))
        _light_up(self, out)
        return out


def is_weak_light(number: int) -> bool:
    """Whether drive `number` (from 1) is a weak-light drive: 5, 6, 13, 14, 21, ..."""
    return number % 8 in (5, 6)


def make_world(seed: int, number: int, frames: int, moving_cars: bool = False) -> World:
    """Build drive `number` (from 1) of a data set.

    The scene changes with the number: city, residential, country, city, ...
    """
    own = seed * 1_000_003 + number * 7919
    dice = random.Random(own)
    scene = SCENES[(number - 1) % 3]
    half, walk = {"city": (5.7, 3.0), "residential": (5.5, 1.9), "country": (3.9, 0.0)}[scene]
    road = make_road(dice, half, walk)
    world = World(scene, number, own, road, _weather(dice, number), drive_along(road, frames, dice))
    world.primitives.append(Primitive("ground", 0, 0, np.zeros(3), 0.0, np.zeros((1, 3))))
    builder = _Builder(world, dice, float(world.poses[-1].position[0]) + AHEAD_M)
    {"city": builder.city, "residential": builder.residential, "country": builder.country}[scene]()
    if moving_cars:
        builder.traffic()
    _light_up(world, world.primitives[1:])
    return world


def _light_up(world: World, parts: list[Primitive]) -> None:
    """Find which bodies the sun reaches past the buildings (buildings themselves count as lit)."""
    sun = np.array(world.weather.sun)
    loose = [body for body in parts if body.material != bodies.FACADE]
    if not loose:
        return
    x, y, z = np.array([body.vertices.mean(0) for body in loose], np.float32).T
    dark = np.zeros(len(loose), np.bool_)
    for wall in world.primitives[1:]:
        if wall.material == bodies.FACADE:
            dark |= meets(wall, x, y, z, sun)
    for body, shaded in zip(loose, dark, strict=True):
        roof = body.material in (bodies.ROOF, bodies.PLAIN)
        body.lit = 0.0 if shaded and not roof else 1.0


def _weather(dice: random.Random, number: int) -> Weather:
    height, angle = math.radians(28 + 30 * dice.random()), 2 * math.pi * dice.random()
    sun = (math.cos(height) * math.cos(angle), math.cos(height) * math.sin(angle), math.sin(height))
    clouds = (0.95, 0.2, 0.45, 0.65)[number % 4] + 0.05 * dice.random()
    haze = 0.0014 + 0.0026 * dice.random()
    if is_weak_light(number):
        dusk = number % 2 == 1
        sky = (0.10, 0.13, 0.21) if dusk else (0.035, 0.045, 0.075)
        glow = (0.22, 0.19, 0.20) if dusk else (0.05, 0.055, 0.075)
        return Weather(sun, (0.03, 0.03, 0.035), sky, glow, haze, 0.7, 1.9, 4.0, True)
    dull = 1 - 0.85 * max(0.0, clouds - 0.7) / 0.3
    warm = 1 - 0.25 * dice.random()
    sun_colour = (3.1 * dull, 2.85 * dull * (0.9 + 0.1 * warm), 2.45 * dull * warm)
    grey = 1 - dull
    sky = (0.48 + 0.25 * grey, 0.60 + 0.14 * grey, 0.86 - 0.06 * grey)
    return Weather(sun, sun_colour, sky, (0.78, 0.84, 0.92), haze, clouds, 0.66 + 0.26 * grey, 1.3, False)


class _Builder:
    """Puts objects along the road."""

    def __init__(self, world: World, dice: random.Random, end: float) -> None:
        self.world, self.dice, self.end = world, dice, end

    def thing(self, name: str) -> int:
        self.world.classes.append(CLASS_ID[name])
        return len(self.world.classes) - 1

    def put(self, parts: list[Primitive]) -> None:
        self.world.primitives.extend(parts)

    def spot(self, x: float, lateral: float, turn: float = 0.0) -> Spot:
        px, py, yaw = self.world.road.place(x, lateral)
        z = KERB_HEIGHT if abs(lateral) > self.world.road.half_width else 0.0
        return px, py, z, yaw + turn

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.dice.random()

    def buildings(self, side: int, setback: float, pitched: bool, gap: tuple[float, float]) -> None:
        x = self.between(-14, -6)
        while x < self.end:
            half = (
                (self.between(4.5, 7.0), self.between(4.0, 5.5))
                if pitched
                else (self.between(6, 10), self.between(5, 7))
            )
            height = self.between(4.8, 6.4) if pitched else self.between(8.5, 19)
            away = self.world.road.half_width + setback + half[1] + (self.between(0, 2.0) if pitched else 0)
            spot = self.spot(x + half[0], side * away)
            self.put(bodies.house(spot, self.thing("building"), half, height, self.dice, pitched))
            x += 2 * half[0] + self.between(*gap)

    def parked(self, side: int, share: float) -> None:
        x = self.between(4, 9)
        while x < self.end - 40:
            if self.dice.random() < share:
                lateral = side * (self.world.road.half_width - 1.05)
                turn = self.between(-0.03, 0.03) + (0 if side < 0 or self.dice.random() < 0.2 else math.pi)
                self.put(bodies.car(self.spot(x, lateral, turn), self.thing("car"), self.dice))
            x += self.between(5.4, 8.5)

    def row(self, side: int, beyond: float, step: tuple[float, float], kind: str) -> None:
        x = self.between(2, step[1])
        while x < self.end:
            spot = self.spot(x, side * (self.world.road.half_width + beyond + self.between(0, 0.25)))
            if kind == "light":
                arm = (*spot[:3], spot[3] + (-math.pi / 2 if side > 0 else math.pi / 2))
                self.put(bodies.street_light(arm, self.thing("pole")))
            elif kind == "tree":
                size = self.between(0.85, 1.3)
                self.put(bodies.tree(spot, self.thing("vegetation"), self.dice, size, beyond >= 6))
            elif kind == "conifer":
                self.put(bodies.conifer(spot, self.thing("vegetation"), self.dice, beyond >= 6))
            elif kind == "sign":
                self.put(bodies.sign(spot, self.thing("sign"), self.dice))
            elif kind == "person":
                self.put(bodies.person((*spot[:3], self.between(0, 6.3)), self.thing("person"), self.dice))
            else:
                self.put([bodies.cylinder(spot, 0.12, 7.5, bodies.BARK, self.thing("pole"), (0.16, 0.12, 0.09))])
            x += self.between(*step)

    def walls(self, side: int, beyond: float, share: float) -> None:
        x = -6.0
        while x < self.end - 30:
            length = self.between(7, 13)
            spot = self.spot(x + length / 2, side * (self.world.road.half_width + beyond))
            draw = self.dice.random()
            if draw < share * 0.5:
                tone = self.between(0.6, 1.1)
                colour = (0.34 * tone, 0.25 * tone, 0.17 * tone) if self.dice.random() < 0.6 else (0.55, 0.55, 0.53)
                half = (length / 2 - 0.4, 0.05)
                self.put(
                    [bodies.box(spot, half, self.between(1.0, 1.7), bodies.FENCE, self.thing("fence"), colour, half)]
                )
            elif draw < share:
                half = (length / 2 - 0.6, 0.45)
                colour = (0.05, 0.095, 0.03)
                parts = [
                    bodies.box(spot, half, self.between(0.9, 1.6), bodies.HEDGE, self.thing("vegetation"), colour, half)
                ]
                self.put(parts)
            x += length + self.between(0.5, 4)

    def rail(self, side: int) -> None:
        x, lateral = -6.0, side * (self.world.road.half_width + 0.9)
        while x < self.end - 20:
            thing = self.thing("fence")
            spot = self.spot(x + 4, lateral)
            grey = (0.42, 0.43, 0.44)
            self.put([bodies.box((*spot[:2], spot[2] + 0.42, spot[3]), (4.03, 0.04), 0.31, bodies.RAIL, thing, grey)])
            for shift in (-2.0, 2.0):
                post = self.spot(x + 4 + shift, lateral + side * 0.1)
                self.put([bodies.box(post, (0.05, 0.05), 0.7, bodies.METAL, thing, (0.33, 0.34, 0.35))])
            x += 8.0

    def city(self) -> None:
        walk = self.world.road.walk
        for side in (-1, 1):
            self.buildings(side, walk + 0.3, pitched=False, gap=(0.0, 2.5))
            self.parked(side, 0.62)
            self.row(side, 0.7, (24, 34), "light")
            self.row(side, 0.9, (13, 24), "tree")
            self.row(side, 1.6, (18, 50), "person")
        self.row(-1, 0.5, (22, 45), "sign")

    def residential(self) -> None:
        walk = self.world.road.walk
        for side in (-1, 1):
            self.buildings(side, walk + 4.5, pitched=True, gap=(3.0, 8.0))
            self.walls(side, walk + 0.5, 0.8)
            self.parked(side, 0.42)
            self.row(side, walk + 2.5, (16, 30), "tree")
            self.row(side, 0.5, (30, 45), "light")
        self.row(-1, 0.4, (25, 60), "sign")
        self.row(1, 0.9, (30, 70), "person")
        self.row(1, walk + 3.2, (22, 50), "conifer")

    def country(self) -> None:
        rail = -1 if self.dice.random() < 0.5 else 1
        self.rail(rail)
        self.row(-rail, 3.2, (9, 17), "tree")
        self.row(-rail, 11.0, (14, 26), "tree")
        self.row(rail, 6.0, (11, 28), "tree")
        self.row(rail, 12.0, (8, 18), "conifer")
        self.row(-rail, 1.8, (30, 38), "pole")
        self.row(-1, 1.3, (28, 60), "sign")
        self.buildings(rail, 18.0, pitched=True, gap=(25.0, 60.0))
        self.walls(-rail, 6.5, 0.35)

    def traffic(self) -> None:
        """Add two cars ahead, which keep the car's own average pace and so their distance, and three oncoming ones."""
        x = [float(pose.position[0]) for pose in self.world.poses]
        pace = (x[-1] - x[0]) / (len(x) - 1)
        ahead = ((14.0, pace, -LANE / 2), (38.0, pace + 0.04, -LANE / 2))
        oncoming = ((45.0, -0.9, LANE / 2), (75.0, -1.0, LANE / 2), (110.0, -0.85, LANE / 2))
        for start, speed, lateral in (*ahead, *oncoming):
            first = start + self.between(-3, 3)
            self.world.movers.append(Mover(first, speed, lateral, self.thing("car"), self.world.seed + int(start)))
