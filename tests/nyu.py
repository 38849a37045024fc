"""A few generated frames in the layout of NYU Depth v2 as BTS prepared it."""

import numpy as np
from PIL import Image


def nyu_tree(root):
    """Two training scenes and a test scene in BTS's layout, at NYU's size."""
    rng = np.random.default_rng(0)
    for folder, frames in (("sync/den_0001", 2), ("sync/bath_0002", 1), ("official_splits/test/bath", 1)):
        (root / folder).mkdir(parents=True)
        for i in range(frames):
            image = Image.fromarray(rng.integers(0, 255, (480, 640, 3), np.uint8))
            image.save(root / folder / f"rgb_{i:05d}.jpg")
            codes = np.full((480, 640), 2000 + i, np.uint16)
            codes[:45], codes[:, :43] = 65000, 65000
            Image.fromarray(codes).save(root / folder / f"sync_depth_{i:05d}.png")
    lines = ["/den_0001/rgb_00000.jpg /den_0001/sync_depth_00000.png 518.8579"]
    (root / "train.txt").write_text("\n".join(lines))
    return root
