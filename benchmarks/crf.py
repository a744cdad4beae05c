"""How far the fast form of the CRF is from the exact one, and how long it takes.

    python -m benchmarks.crf [--json=FILE]

Prints the table of docs/crf.md. The images are built-in ones with noise; the masks are such as an unsure localizer of
output stride 8 could find: the true one at an eighth of the size, faint and noisy, enlarged, through the sigmoid.
"""

import dataclasses
import functools
import time

import jax
from minmax_jax.experiments import program
import numpy as np

from benchmarks import figures as figures_lib
from minmax_jax.data import synthetic
from minmax_jax.ops import resize
from minmax_jax.refinement import crf as crf_lib
from tests import exact_crf

PUBLISHED = {
    "GlaS": crf_lib.Crf(num_iterations=2, gaussian_sigma=3, bilateral_sigma=13, color_sigma=3),
    "birds, flowers": crf_lib.Crf(num_iterations=5, gaussian_sigma=5, bilateral_sigma=19, color_sigma=11),
}
MAX_OFFSETS = (20000, 5000, 2500, 1250)
NUM_IMAGES, SIDE, FULL_SIZE = 4, 144, (522, 775)


def make_examples(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """[B, H, W, 1] soft masks and [B, H, W, 3] uint8 images."""
    split = synthetic.load("test", NUM_IMAGES, config=synthetic.SyntheticConfig(image_size=SIDE))
    images, masks = [], []
    for index in range(NUM_IMAGES):
        image = split.read_image(index) + rng.normal(0, 20, (SIDE, SIDE, 3))
        images.append(np.clip(image.round(), 0, 255).astype(np.uint8))
        coarse = split.read_mask(index).reshape(SIDE // 8, 8, SIDE // 8, 8).mean(axis=(1, 3))
        found = resize.resize_mask(0.25 + 0.5 * coarse + rng.normal(0, 0.25, coarse.shape), (SIDE, SIDE))
        masks.append(1 / (1 + np.exp(-8 * (np.clip(found, 0, 1) - 0.5))))
    return np.stack(masks)[..., None].astype(np.float32), np.stack(images)


def time_image(crf: crf_lib.Crf, rng: np.random.Generator) -> tuple[float, float]:
    """Wall and CPU seconds of one full-size image, compilation left out."""
    images = rng.integers(0, 256, (1, *FULL_SIZE, 3), np.uint8)
    masks = rng.random((1, *FULL_SIZE, 1), np.float32)
    refine = jax.jit(functools.partial(crf_lib.refine, crf=crf)).lower(masks, images).compile()
    wall, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(refine(masks, images))
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    rng, figures = np.random.default_rng(0), []
    masks, images = make_examples(rng)
    print("| parameters | max_offsets | maximum difference | mean difference | other side of 0.5, % | s | CPU s |")
    print("|---|---|---|---|---|---|---|")
    for name, published in PUBLISHED.items():
        exact = exact_crf.refine(masks, images, crf=published)
        moved = 100 * np.mean((exact >= 0.5) != (masks >= 0.5))
        print(f"| {name}, exact; moves {moved:.1f} % of the pixels to the other side of 0.5 | | | | | | |", flush=True)
        for max_offsets in MAX_OFFSETS:
            crf = dataclasses.replace(published, max_offsets=max_offsets)
            fast = crf_lib.refine(masks, images, crf=crf)
            difference = np.abs(fast - exact)
            flipped = 100 * np.mean((fast >= 0.5) != (exact >= 0.5))
            wall, cpu = time_image(crf, rng)
            row = {"maximum": difference.max(), "mean": difference.mean(), "flipped": flipped, "s": wall, "cpu_s": cpu}
            row = {name: float(value) for name, value in row.items()}
            print(
                f"| {name} | {max_offsets} | {row['maximum']:.3f} | {row['mean']:.5f} | {flipped:.3f}"
                f" | {wall:.1f} | {cpu:.1f} |",
                flush=True,
            )
            figures.append({"parameters": name, "max_offsets": max_offsets} | row)
    figures_lib.write(figures)


if __name__ == "__main__":
    program.run(main)
