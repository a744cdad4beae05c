"""The Vision Transformer against PyTorch's operations on a state dict with DINOv2's names."""

import numpy as np
import pytest

from tests import test_vit

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.witness

import torch.nn.functional as F  # noqa: E402


def _forward(tensors, images, num_registers):
    """DINOv2's forward pass: [B, H, W, 3] images to [B, h, w, K] patch tokens."""
    tensors = {name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()}

    def dense(x, name):
        return F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"], eps=1e-6)

    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (((torch.from_numpy(images) + 1) / 2 - mean) / std).permute(0, 3, 1, 2)
    x = F.conv2d(pixels, tensors["patch_embed.proj.weight"], tensors["patch_embed.proj.bias"], stride=14)
    batch, width, *size = x.shape
    grid = test_vit.GRID
    positions = tensors["pos_embed"][:, 1:].reshape(1, grid, grid, width).permute(0, 3, 1, 2)
    if tuple(size) != (grid, grid):
        scales = {"scale_factor": tuple((side + 0.1) / grid for side in size)}
        target = {"size": tuple(size), "antialias": True} if num_registers else scales
        positions = F.interpolate(positions, mode="bicubic", **target)
    x = (x + positions).flatten(2).transpose(1, 2)
    first = tensors["cls_token"] + tensors["pos_embed"][:, :1]
    registers = [tensors["register_tokens"]] if num_registers else []
    x = torch.cat([token.expand(batch, -1, -1) for token in (first, *registers)] + [x], dim=1)
    for index in range(test_vit.DEPTH):
        block = f"blocks.{index}"
        qkv = dense(norm(x, f"{block}.norm1"), f"{block}.attn.qkv")
        heads = qkv.reshape(batch, -1, 3, test_vit.HEADS, width // test_vit.HEADS).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(x.shape)
        x = x + tensors[f"{block}.ls1.gamma"] * dense(y, f"{block}.attn.proj")
        y = dense(F.gelu(dense(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
        x = x + tensors[f"{block}.ls2.gamma"] * y
    return norm(x, "norm")[:, 1 + num_registers :].reshape(batch, *size, width).numpy()


@pytest.mark.parametrize("num_registers", [0, 4])
@pytest.mark.parametrize("size", [(2, 3), (5, 5), (8, 4)])
def test_features(num_registers, size):
    tensors = test_vit.to_tensors(test_vit.draw_variables(num_registers)["params"], "dinov2")
    images = test_vit.draw_images(2, 14 * size[0], 14 * size[1])
    expected = _forward(tensors, images, num_registers)
    np.testing.assert_allclose(test_vit.features(images, num_registers), expected, rtol=1e-3, atol=2e-4)
