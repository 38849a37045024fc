"""Golden files of TIE-KD, its students and teachers: reading, comparing, and the seeded weight recipe."""

import zlib
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1] / "data" / "tie_kd"


def load(name):
    """All arrays of a golden file; `X_q64` and `X_q16` become float32 under `X`."""
    with np.load(ROOT / name) as data:
        arrays = {key: data[key] for key in data.files}
    for key in list(arrays):
        for suffix, scale in (("_q64", 64), ("_q16", 16), ("_x64", 64)):
            if key.endswith(suffix):
                arrays[key.removesuffix(suffix)] = arrays[key].astype(np.float32) / scale
    return arrays


def weights(arrays, prefix="w__"):
    """The stored weights (value = w / 64) as tensors under their reference key."""
    import torch

    return {
        key.removeprefix(prefix): torch.from_numpy(value.astype(np.float32) / 64)
        for key, value in arrays.items()
        if key.startswith(prefix)
    }


def assert_near(got, expected, tolerance):
    """Largest absolute error at most tolerance * max(1, largest absolute expected value)."""
    got = np.asarray(got.detach() if hasattr(got, "detach") else got)
    expected = np.asarray(expected)
    assert got.shape == expected.shape
    error = np.abs(got.astype(np.float64) - expected).max()
    limit = tolerance * max(1.0, float(np.abs(expected).max()))
    assert error <= limit, f"largest error {error:.3g}, allowed {limit:.3g}"


def filled(name, shape, seed):
    """The seeded tensor of this name."""
    z = np.random.RandomState((zlib.crc32(name.encode()) ^ seed) & 0x7FFFFFFF).standard_normal(tuple(shape))
    z = z.astype(np.float32)
    if name.endswith("running_var"):
        return 1 + 0.2 * np.abs(z)
    if name.endswith("running_mean"):
        return 0.1 * z
    if name.endswith("positional_encodings"):
        return 0.5 * z
    if len(shape) >= 2:
        fan = int(np.prod(shape[1:]))
        return (z * np.sqrt(1.6 / fan) * (8 if name.endswith("conv_out.0.weight") else 1)).astype(np.float32)
    if name.endswith("weight"):
        return 1 + 0.1 * z
    return 0.05 * z


def fill(network, seed, rename=lambda key: key):
    """Fill every floating-point tensor of a network by the recipe, in place."""
    import torch

    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.from_numpy(np.asarray(filled(rename(key), tensor.shape, seed), np.float32)))
    return network.eval()
