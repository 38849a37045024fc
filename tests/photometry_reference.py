"""The colours of a sample written step by step, as the NeWCRFs loader does; used by tests and benchmarks only."""

import numpy as np

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def change_colours(image, gamma, brightness, factors):
    """Float image in [0, 1], [H, W, 3] -> the same after gamma, brightness, colour factors and clip."""
    out = image**gamma
    out = out * brightness
    white = np.ones(image.shape[:2])
    out *= np.stack([white * factor for factor in factors], axis=2)  # in place: stays float32
    return np.clip(out, 0, 1)


def normalise(image):
    """[H, W, 3] -> [3, H, W]."""
    chw = np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)
    return (chw - MEAN[:, None, None]) / STD[:, None, None]
