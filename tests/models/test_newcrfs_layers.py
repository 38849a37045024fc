"""The modules of NeWCRFs against the reference's own outputs."""

import pytest

torch = pytest.importorskip("torch")

from adubench.models.heads import DispHead  # noqa: E402
from adubench.models.newcrf_layers import CRFLayer, NewCRF, WindowCRFAttention  # noqa: E402
from adubench.models.psp import PSP  # noqa: E402
from adubench.models.windows import (  # noqa: E402
    WINDOW,
    attend,
    build_shift_mask,
    enter_windows,
    leave_windows,
    merge_windows,
    partition,
    relative_position_index,
    split_heads,
)
from tests.models.newcrfs_golden import close, golden, weights  # noqa: E402


def _as_map(windows, columns=2):
    """(B * columns, 49, C) windows, side by side, as a map (B, 7, 7 * columns, C)."""
    parts = windows.view(-1, columns, WINDOW, WINDOW, windows.shape[-1])
    return parts.permute(0, 2, 1, 3, 4).reshape(-1, WINDOW, columns * WINDOW, windows.shape[-1])


def _explicit_bias(table, mask):
    """The additive bias written out: table entries by the index, plus the mask of each window."""
    bias = table[relative_position_index().view(-1)].view(49, 49, -1).permute(2, 0, 1)
    return bias if mask is None else (bias[None] + mask[:, None]).flatten(0, 1)


@pytest.mark.parametrize("masked", [False, True])
def test_window_attention_is_the_references(masked):
    arrays = golden("window_attention")
    attention = WindowCRFAttention(16, 2, shift=0)
    attention.load_state_dict(weights(arrays))
    mask = arrays["mask"] if masked else None
    attention.window_bias = lambda table, *_: _explicit_bias(table, mask)
    y = attention(_as_map(arrays["x"]), _as_map(arrays["v"]))
    close(y, _as_map(arrays["y_mask" if masked else "y_nomask"]), 1e-5)


def test_position_index_is_the_buffer_of_the_checkpoints():
    buffer = golden("window_attention")["w:relative_position_index"]
    assert torch.equal(relative_position_index(), buffer)


@pytest.mark.parametrize("case", ["a", "b"])
@pytest.mark.parametrize("grad", [False, True])
def test_crf_blocks_are_the_references(case, grad):
    arrays = golden(f"crf_blocks_{case}")
    height, width = int(arrays["H"]), int(arrays["W"])
    layer = CRFLayer(16, int(arrays["num_heads"])).eval()
    layer.load_state_dict(weights(arrays))
    padded = (-(-height // 7) * 7, -(-width // 7) * 7)
    assert torch.equal(build_shift_mask(*padded), arrays["attn_mask"])
    x = arrays["x"].view(-1, height, width, 16)
    with torch.set_grad_enabled(grad):
        first = layer.blocks[0](x, arrays["v"])
        second = layer.blocks[1](first, arrays["v"])
        whole = layer(x, arrays["v"])
    close(first.flatten(1, 2), arrays["y_block0"], 2e-5)
    close(second.flatten(1, 2), arrays["y_block1"], 2e-5)
    close(whole.flatten(1, 2), arrays["y"], 2e-5)


@pytest.mark.parametrize(("name", "widths"), [("proj", (12, 8, 16)), ("noproj", (16, 16, 16))])
def test_crf_stage_and_its_gradients_are_the_references(name, widths):
    arrays = golden(f"newcrf_layer_{name}")
    stage = NewCRF(*widths, int(arrays["num_heads"]))
    stage.load_state_dict(weights(arrays))
    x, v = arrays["x"].requires_grad_(), arrays["v"].requires_grad_()
    y = stage(x, v)
    close(y, arrays["y"], 2e-5)
    (y * arrays["grad_out"]).sum().backward()
    close(x.grad, arrays["grad_x"], 2e-5)
    close(v.grad, arrays["grad_v"], 2e-5)


def test_pooling_branches_normalise_in_groups_of_two_channels():
    arrays = golden("ppm_gn256")
    head = PSP(6, 512, 256).eval()
    head.psp_modules.load_state_dict(weights(arrays))
    for index, branch in enumerate(head.branches(arrays["x"])):
        close(branch[:, ::16], arrays[f"y{index}_every16th"], 1e-4)


def test_pooling_head_is_the_references_in_both_modes():
    arrays = golden("psp_head")
    head = PSP(10, 8, int(arrays["groups"])).eval()
    head.load_state_dict(weights(arrays))
    for index, branch in enumerate(head.branches(arrays["x"])):
        close(branch, arrays[f"ppm{index}"], 1e-4)
    close(head(arrays["x"]), arrays["y_eval"], 1e-4)
    head.train()
    close(head(arrays["x"]), arrays["y_train"], 1e-4)
    close(head.bottleneck.bn.running_mean, arrays["running_mean_after"], 1e-4)
    close(head.bottleneck.bn.running_var, arrays["running_var_after"], 1e-4)


@pytest.mark.parametrize("factor", [1, 4])
def test_depth_head_applies_the_sigmoid_before_it_upsamples(factor):
    arrays = golden("disp_head")
    head = DispHead(8)
    head.load_state_dict(weights(arrays))
    close(head(arrays["x"], factor), arrays[f"y_scale{factor}"], 1e-6)


@pytest.mark.parametrize("order", ["official", "timm"])
@pytest.mark.parametrize("shift", [0, 3])
def test_entering_and_leaving_windows_is_the_identity(order, shift):
    x = torch.arange(2 * 9 * 16 * 6, dtype=torch.float32).view(2, 9, 16, 6)
    inside = enter_windows(x, shift, order)
    assert inside.shape == (2, 14, 21, 6)
    (split,) = split_heads(partition(inside), 1, 3)
    assert split.shape == (2, 6, 3, 49, 2)
    assert torch.equal(leave_windows(merge_windows(split, 14, 21), shift, 9, 16, order), x)


def test_the_two_window_orders_differ_only_where_a_map_is_padded():
    x = torch.randn(1, 14, 14, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(enter_windows(x, 3, "official"), enter_windows(x, 3, "timm"))
    x = x[:, :10]
    assert not torch.equal(enter_windows(x, 3, "official"), enter_windows(x, 3, "timm"))


def test_one_bias_for_all_windows_equals_the_same_bias_per_window():
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 3, 49, 8, generator=generator)
    bias = torch.randn(3, 49, 49, generator=generator)
    close(attend(q, k, v, bias), attend(q, k, v, bias.repeat(4, 1, 1)), 1e-6)


def test_a_single_window_is_split_by_heads_not_by_windows():
    """With one window both readings of the bias have the same length."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 1, 3, 49, 8, generator=generator)
    bias = torch.randn(3, 49, 49, generator=generator)
    expected = (q @ k.transpose(-1, -2) * 8**-0.5 + bias).softmax(-1) @ v
    close(attend(q, k, v, bias), expected, 1e-5)
