"""The inference forms of windows and MLP against the plain ones."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from adubench.models import inference_windows as fast  # noqa: E402
from adubench.models import windows  # noqa: E402
from adubench.models.zoo import build  # noqa: E402


@pytest.mark.parametrize("order", ["official", "timm"])
@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize("size", [(7, 7), (3, 5), (10, 15), (14, 9)])
def test_gathered_windows_are_padded_rolled_and_cut_ones(size, shift, order):
    x = torch.randn(2, *size, 6)
    cells = fast.window_cells(2, *size, shift, order, x.device)
    tokens = fast.gather_windows(x, cells)
    assert torch.equal(tokens, windows.partition(windows.enter_windows(x, shift, order)))
    assert torch.equal(fast.scatter_windows(tokens, cells, size), x)


def test_indices_are_made_once():
    first = fast.window_cells(1, 12, 9, 3, "official", torch.device("cpu"))
    again = fast.window_cells(1, 12, 9, 3, "official", torch.device("cpu"))
    assert all(a is b for a, b in zip(first, again, strict=True))


def test_sliced_mlp_is_the_whole_one(monkeypatch):
    torch.manual_seed(0)
    norm, fc1, fc2 = nn.LayerNorm(8), nn.Linear(8, 32), nn.Linear(32, 8)
    x = torch.randn(2, 5, 11, 8)
    with torch.no_grad():
        whole = x + fc2(nn.functional.gelu(fc1(norm(x))))
        assert torch.allclose(fast.feed_forward(x, norm, fc1, fc2), whole, atol=1e-6)
        for cells in (1, 500, 1000):
            monkeypatch.setattr(fast, "WHOLE_CELLS", 0)
            monkeypatch.setattr(fast, "HIDDEN_CELLS", cells)
            assert torch.allclose(fast.feed_forward(x, norm, fc1, fc2), whole, atol=1e-6)


@pytest.mark.parametrize("order", ["official", "timm"])
def test_inference_is_training_form_without_its_gradients(order):
    torch.manual_seed(0)
    network = build({"family": "newcrfs", "variant": "mini", "window_order": order}).eval()
    x = torch.randn(2, 3, 96, 160)
    plain = network(x)
    with torch.no_grad():
        quick = network(x)
    assert plain.depth.requires_grad
    assert not quick.depth.requires_grad
    assert torch.allclose(plain.depth, quick.depth, atol=1e-4)
    for mine, theirs in zip(quick.decoder, plain.decoder, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-4)


def test_without_gradients_a_training_encoder_keeps_its_drop_path():
    torch.manual_seed(0)
    network = build({"family": "newcrfs", "variant": "mini", "drop_path": 0.9}).train()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        first, second = (network.encode(x)[3] for _ in range(2))
    assert not torch.equal(first, second)
