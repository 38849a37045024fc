"""Golden data of the self-supervised networks: arrays, images, and weights drawn by the seeded recipe."""

import json
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from adubench.datasets.kitti import KittiRaw
from adubench.datasets.triplets import TripletPlaces

DRIVE = "2011_09_26_drive_0001"
DATA = Path(__file__).parent / "data" / "self_supervised"


def arrays(name):
    """All arrays of a file, as tensors; images become RGB in [0, 1]."""
    import torch

    with np.load(DATA / f"{name}.npz") as file:
        return {key: torch.from_numpy(np.asarray(_image(file[key]))) for key in file.files}


def values(name):
    """A table of numbers."""
    return json.loads((DATA / f"{name}.json").read_text())


def _image(array):
    return array.astype(np.float32) / np.float32(255) if array.dtype == np.uint8 and array.ndim == 4 else array


def recipe(net, part, *, seed=None):
    """Weights of a part of a network, with its official names; drawn once, so leave them as they are."""
    return dict(_recipe(net, part, seed))


@cache
def _recipe(net, part, seed):
    import torch

    table = values(f"weights_{net}")[part]
    random = np.random.RandomState(table["seed"] if seed is None else seed)
    gain = table["gain"] if seed is None else 1.0
    out = {}
    for name, shape, dtype, total in table["tensors"]:
        if dtype == "int64":
            out[name] = torch.zeros(shape, dtype=torch.int64)
            continue
        if name.endswith("running_var"):
            value = 0.5 + random.random_sample(shape)
        elif name.endswith(("running_mean", "bias")):
            value = 0.1 * random.standard_normal(shape)
        elif len(shape) == 1:
            value = 0.5 + random.random_sample(shape)
        else:
            value = random.standard_normal(shape) * np.sqrt(gain / np.prod(shape[1:]))
        value = value.astype(np.float32)
        if seed is None:
            assert abs(value.astype(np.float64).sum() - total) < 1e-6 * max(1.0, abs(total)), name
        out[name] = torch.from_numpy(value)
    return out


def without_classifier(state):
    return {key: value for key, value in state.items() if not key.startswith("encoder.fc.")}


def weights(file):
    """The `w/` entries of a file of arrays."""
    return {key[2:]: value for key, value in file.items() if key.startswith("w/")}


def close(actual, expected, absolute, relative=0.0):
    """Assert closeness and say by how much it fails."""
    import torch

    error = (actual.detach().double() - expected.double()).abs()
    allowed = absolute + relative * expected.double().abs()
    assert torch.all(error <= allowed), f"largest error {error.max():.3g}, allowed {allowed.min():.3g}"


def mostly_close(actual, expected, absolute, share, relative=0.0):
    """Assert closeness of a share of all elements."""
    error = (actual.detach().double() - expected.double()).abs()
    inside = (error <= absolute + relative * expected.double().abs()).double().mean()
    assert inside >= share, f"{inside:.5f} of the elements are close, expected {share}"


def write_drive(root, *, frames=6, cameras=(2, 3), move=8, drive=DRIVE):
    """A drive whose texture shifts by `move` pixels per frame."""
    texture = np.random.default_rng(0).integers(0, 256, (60, 400, 3), dtype=np.uint8)
    texture = np.asarray(Image.fromarray(texture).resize((400, 60), Image.Resampling.BOX))
    for camera in cameras:
        folder = root / drive[:10] / f"{drive}_sync" / f"image_0{camera}" / "data"
        folder.mkdir(parents=True)
        for index in range(frames):
            start = index * move + 5 * (camera == 3)
            Image.fromarray(texture[:, start : start + 160]).save(folder / f"{index:010d}.png")
    return TripletPlaces(KittiRaw(root))
