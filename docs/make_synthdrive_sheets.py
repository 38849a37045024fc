"""Draw the contact sheets of docs/synthdrive.md into docs/images (run from the root of the repository)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from adubench.datasets.synthdrive.drive import DriveFrame, boundaries, record
from adubench.datasets.synthdrive.lightmap import bake
from adubench.datasets.synthdrive.renderer import render
from adubench.datasets.synthdrive.rig import kitti_rig
from adubench.datasets.synthdrive.scene import make_scene
from adubench.datasets.synthdrive.world import make_world

FOLDER = Path(__file__).parent / "images"
SIZE = (375, 1242)
GAP = 6


def colours(depth: np.ndarray) -> np.ndarray:
    """Colour a depth map by the logarithm of depth, 3 m red over yellow and green to 80 m blue; black for none."""
    share = np.clip(np.log(np.maximum(depth, 1e-3) / 3) / np.log(80 / 3), 0, 1)
    stops = np.array([[200, 30, 40], [250, 190, 60], [90, 190, 110], [50, 110, 200], [50, 30, 110]], float)
    place = share * (len(stops) - 1)
    low = np.minimum(place.astype(int), len(stops) - 2)
    rgb = stops[low] + (stops[low + 1] - stops[low]) * (place - low)[..., None]
    return np.where(depth[..., None] > 0, rgb, 0).astype(np.uint8)


def labels(things: np.ndarray) -> np.ndarray:
    """Give every object a colour of its own."""
    rng = np.random.default_rng(3)
    palette = rng.integers(40, 255, (1 << 16, 3)).astype(np.uint8)
    return palette[things]


def thicker(mask: np.ndarray) -> np.ndarray:
    """Grow a mask by one pixel, so that it survives scaling down."""
    pad = np.pad(mask, 1)
    height, width = mask.shape
    return np.max([pad[j : j + height, i : i + width] for j in range(3) for i in range(3)], axis=0)


def sheet(pictures: list[np.ndarray], columns: int, width: int, path: Path) -> None:
    """Save pictures as a grid; a palette keeps the file small."""
    height = round(width * SIZE[0] / SIZE[1])
    rows = -(-len(pictures) // columns)
    out = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP), "white")
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        small = Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)
        out.paste(small, (GAP + column * (width + GAP), GAP + row * (height + GAP)))
    path.parent.mkdir(parents=True, exist_ok=True)
    out.quantize(192, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE).save(path, optimize=True)


def contact(seed: int = 0) -> list[np.ndarray]:
    """Render one picture of each of twelve drives."""
    out = []
    for number in range(1, 13):
        world = make_world(seed, number, 40, moving_cars=True)
        frame = (7 * number) % 40
        scene = make_scene(world, frame)
        light = bake(world, 0.1).with_cars(scene, world.moving(frame))
        out.append(render(scene, kitti_rig(SIZE), frame, 2, light).image)
    return out


def layers(frame: DriveFrame) -> list[np.ndarray]:
    """Picture, right picture, exact depth, scan, accumulated ground truth, objects, boundaries."""
    view = frame.views[2]
    edge = thicker(boundaries(view))[..., None]
    return [
        view.image,
        frame.views[3].image,
        colours(view.depth),
        labels(view.things),
        colours(thicker(frame.velodyne_raw[2])),
        colours(thicker(frame.ground_truth[2])),
        np.where(edge, np.uint8(255), (view.image * 0.35).astype(np.uint8)),
        np.where(
            frame.ground_truth[2][..., None] > 0, colours(frame.ground_truth[2]), (view.image * 0.6).astype(np.uint8)
        ),
    ]


def main() -> None:
    """Draw both sheets."""
    sheet(contact(), 3, 520, FOLDER / "synthdrive_contact.png")
    world = make_world(0, 2, 14, moving_cars=True)
    frame = next(f for f in record(world, kitti_rig(SIZE)) if f.number == 7)
    sheet(layers(frame), 2, 600, FOLDER / "synthdrive_layers.png")


if __name__ == "__main__":
    main()
