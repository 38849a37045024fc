"""Small random networks as checkpoints, a stand-in network whose output is known."""

from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from adubench.models.interface import DepthNetwork, Inference, InputRule
from adubench.models.zoo import build
from adubench.training.checkpoint import CheckpointInfo, save_checkpoint

NEWCRFS = {"family": "newcrfs", "variant": "mini"}
MONODEPTH2 = {"family": "monodepth2", "height": 64, "width": 96}


def make_checkpoint(path, config=NEWCRFS, seed=0, **info):
    """Write a network with seeded random weights and return it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(config)
    save_checkpoint(path, network, info=CheckpointInfo(model=network.config, **info))
    return network.eval()


def save_image(path, size=(64, 96), seed=0):
    """Write an RGB picture of noise and return its pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


class Known(DepthNetwork):
    """Depth is 1 + the first channel of its input, with a ramp that is no mirror image of itself."""

    family = "known"

    def __init__(self, **attributes):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.config = {"family": "known"}
        self.calls = []
        for name, value in ({"input_rule": InputRule(3, (0.0,) * 3, (1.0,) * 3)} | attributes).items():
            setattr(self, name, value)

    def infer(self, images, *, focal=None):
        self.calls.append(SimpleNamespace(shape=tuple(images.shape), focal=focal, training=self.training))
        ramp = torch.linspace(0, 1, images.shape[-1])
        values = 1 + images[:, :1] + ramp
        uncertainty = 2 * values if self.uncertainty_kind else None
        if self.output == "depth":
            return Inference(depth=values, uncertainty=uncertainty)
        return Inference(disparity=values / 4, uncertainty=uncertainty)
