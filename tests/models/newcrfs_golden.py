"""What the tests of NeWCRFs share: golden arrays, official module weights, small networks with visible weights."""

from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).resolve().parents[1] / "data" / "newcrfs"


def golden(name):
    """The arrays of one golden file as tensors."""
    with np.load(DATA / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def weights(arrays, *, buffers=False):
    """The official state_dict among them, by default without the index buffers."""
    state = {key[2:]: value for key, value in arrays.items() if key.startswith("w:")}
    return {key: value for key, value in state.items() if buffers or not key.endswith("relative_position_index")}


def close(actual, expected, tolerance):
    """Assert equality up to an absolute tolerance."""
    torch.testing.assert_close(actual.detach(), expected, rtol=0, atol=tolerance)


def redraw(network, seed=0):
    """Give every parameter and statistic a size that shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            noise = torch.randn(value.shape, generator=generator) if value.is_floating_point() else None
            if noise is None:
                continue
            if name.endswith("running_var"):
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
            elif "norm" in name and name.endswith("weight"):
                value.copy_(1 + 0.2 * noise)
            elif value.ndim >= 2 and not name.endswith("table"):
                value.copy_(noise / value[0].numel() ** 0.5)
            else:
                value.copy_(0.2 * noise)
    return network
