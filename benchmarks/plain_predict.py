"""A plain program to compare `predict` with: a network on the photographs of a folder, masks and overlays written.

    python -m benchmarks.plain_predict --output=OUT [--onnx=FILE] [--batch_size=8] FOLDER

Without --onnx, the network is EfficientNet-Lite0 in PyTorch and the mask LayerCAM (Jiang et al. 2021) of its last
stage:
one pass of one network an image, and the gradient of its best logit by that stage. Its weights are random, which takes
the same time. With --onnx, the network is a file of `minmax-jax export` in onnxruntime. Photographs have one size.
It imports nothing of `minmax_jax`.
"""

from collections.abc import Callable
import os
import pathlib

from absl import app, flags
import numpy as np
from PIL import Image

_ONNX = flags.DEFINE_string("onnx", "", "File of `minmax-jax export`; without, PyTorch is run.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write to.", required=True)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images that are predicted together.")
_LITE0 = (  # (repeats, window, stride, expansion, channels)
    *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
    *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)
_NUM_CLASSES = 17
_COLOR = np.array([255, 212, 0])


def _create_layer_cam() -> Callable[[np.ndarray], np.ndarray]:
    """[B, H, W, 3] uint8 to [B, H, W] masks in [0, 1]."""
    import torch
    import torch.nn.functional as F

    from benchmarks import torch_lite

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    net = torch_lite.LiteNet(_NUM_CLASSES, stages=_LITE0).eval()
    linear = torch.nn.Linear(_LITE0[-1][-1], _NUM_CLASSES)

    def predict(images: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            features = net.trunk(x / 127.5 - 1)
        features.requires_grad_()
        logits = linear(features.mean((2, 3)))
        (gradients,) = torch.autograd.grad(logits.amax(1).sum(), features)
        maps = F.relu((F.relu(gradients) * features.detach()).sum(1, keepdim=True))
        maps = F.interpolate(maps, images.shape[1:3], mode="bilinear", align_corners=False)[:, 0]
        return (maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-12)).numpy()

    return predict


def _create_onnx(path: str) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def predict(images: np.ndarray) -> np.ndarray:
        (masks,) = session.run(["masks"], {name: images.astype(np.float32) / 127.5 - 1})
        return masks[..., 0]

    return predict


def main(argv: list[str]) -> None:
    files = sorted(path for path in pathlib.Path(argv[1]).iterdir() if path.is_file())
    output = pathlib.Path(_OUTPUT.value)
    for folder in ("masks", "overlays"):
        (output / folder).mkdir(parents=True)
    predict = _create_onnx(_ONNX.value) if _ONNX.value else _create_layer_cam()
    for first in range(0, len(files), _BATCH_SIZE.value):
        batch = files[first : first + _BATCH_SIZE.value]
        images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in batch])
        for path, image, mask in zip(batch, images, predict(images)):
            foreground = mask >= 0.5
            overlay = np.where(foreground[..., None], 0.75 * image + 0.25 * _COLOR, image).astype(np.uint8)
            Image.fromarray(255 * foreground.astype(np.uint8)).save(output / "masks" / f"{path.stem}.png")
            Image.fromarray(overlay).save(output / "overlays" / f"{path.stem}.png")


if __name__ == "__main__":
    app.run(main)
