"""The C kernels on random shapes under the address and undefined-behaviour sanitizers.

    python -m tests.fuzz_kernels --count=500 --seed=1

Starts itself again, with the library of the sanitizer and a cache folder of its own; needs a compiler that has it. Each
call has separate buffers and is compared with XLA's form.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

_FLAGS = ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
_INSIDE = "MINMAX_JAX_SANITIZED"


def find_sanitizer() -> list[str]:
    """Paths of the libraries to load first, none where the compiler has no address sanitizer.

    The sanitizer looks for the C++ library when it starts, and Python does not load that.
    """
    paths = []
    for name in ("libasan.so", "libstdc++.so.6"):
        try:
            command = [os.environ.get("CC", "cc"), f"-print-file-name={name}"]
            path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return []
        if not pathlib.Path(path).is_absolute() or not pathlib.Path(path).exists():
            return []
        paths.append(path)
    return paths


def start(count: int, seed: int) -> subprocess.CompletedProcess:
    """Runs `count` calls in a new process."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {
            "LD_PRELOAD": " ".join(find_sanitizer()),
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=99",
            "XDG_CACHE_HOME": cache,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "",
            _INSIDE: "1",
        }
        command = [sys.executable, "-m", "tests.fuzz_kernels", f"--count={count}", f"--seed={seed}"]
        return subprocess.run(command, env=environment, capture_output=True, text=True)


def _array(rng: np.random.Generator, shape) -> np.ndarray:
    """Of any memory layout: JAX makes it dense."""
    array = rng.normal(size=shape).astype(np.float32)
    match rng.integers(0, 3):
        case 0:
            return array
        case 1:
            return np.asfortranarray(array)
        case _:
            return np.repeat(array, 2, axis=-1)[..., ::2]


def _try_conv(rng: np.random.Generator) -> str:
    import jax
    import jax.numpy as jnp

    from minmax_jax.ops.cpu import native

    batch, height, width = rng.integers(1, 4), *rng.integers(1, 24, 2)
    channels, outputs = rng.integers(1, 50, 2)
    window, stride, padding = rng.integers(1, 8), rng.integers(1, 4), rng.integers(0, 4)
    winograd = bool(rng.integers(0, 2)) and native.can_use_winograd(channels, outputs)
    if winograd:
        window, stride, padding = 3, 1, rng.integers(0, 3)
    size = tuple(int(side + 2 * padding - window) // int(stride) + 1 for side in (height, width))
    if min(size) < 1:
        return "passed over"
    images, kernel = _array(rng, (batch, height, width, channels)), _array(rng, (window, window, channels, outputs))
    epilogue, options = None, dict(stride=int(stride), top=int(padding), left=int(padding))
    if rng.integers(0, 2):
        residual = jnp.asarray(_array(rng, (batch, *size, outputs))) if rng.integers(0, 2) else None
        vectors = (jnp.asarray(_array(rng, (outputs,))) for _ in range(2))
        epilogue = native.Epilogue(*vectors, residual, relu=bool(rng.integers(0, 2)))
    found = native.conv(
        jnp.asarray(images), jnp.asarray(kernel), **options, size=size, epilogue=epilogue, winograd=winograd
    )

    def reference(images, kernel):
        return jax.lax.conv_general_dilated(
            images, kernel, (stride,) * 2, [(padding,) * 2] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    expected, transpose = jax.vjp(reference, images, kernel)
    _compare(found, expected if epilogue is None else epilogue(expected))
    cotangents = jnp.asarray(_array(rng, expected.shape))
    _, of_kernel = transpose(cotangents)
    gradient = native.conv_kernel_gradient(jnp.asarray(images), cotangents, **options, window=(int(window),) * 2)
    _compare(gradient, of_kernel)
    if winograd:
        _compare(
            native.winograd_kernel_gradient(jnp.asarray(images), cotangents, top=int(padding), left=int(padding)),
            of_kernel,
        )
    return "winograd" if winograd else "conv"


def _try_max_pool(rng: np.random.Generator) -> str:
    import jax
    import jax.numpy as jnp

    from minmax_jax.ops.cpu import native

    shape = (rng.integers(1, 4), *rng.integers(1, 24, 2), rng.integers(1, 50))
    window, stride = (int(number) for number in rng.integers(1, 5, 2))
    padding = int(rng.integers(0, (window + 1) // 2 + 1))
    if min(shape[1:3]) + 2 * padding < window or padding >= window:
        return "passed over"
    features = jnp.asarray(_array(rng, shape))
    options = dict(window=window, stride=stride, padding=padding)
    maxima, indices = native.max_pool(features, **options)

    def reference(features):
        return jax.lax.reduce_window(
            jax.nn.relu(features),
            -np.inf,
            jax.lax.max,
            (1, window, window, 1),
            (1, stride, stride, 1),
            [(0, 0), (padding,) * 2, (padding,) * 2, (0, 0)],
        )

    expected, transpose = jax.vjp(reference, features)
    _compare(maxima, expected)
    cotangents = jnp.asarray(_array(rng, expected.shape))
    gradient = native.max_pool_gradient(indices, cotangents, **options, size=tuple(map(int, shape[1:3])))
    # Where all values of a window are negative, the ReLU's gradient is 0, whichever was chosen.
    _compare(gradient, transpose(cotangents)[0])
    return "max_pool"


def _try_depthwise(rng: np.random.Generator) -> str:
    import functools

    import jax
    import jax.numpy as jnp

    from minmax_jax.ops import depthwise

    shape, side = (rng.integers(1, 4), *rng.integers(1, 24, 2), rng.integers(1, 70)), 2 * int(rng.integers(0, 4)) + 1
    statics = dict(stride=int(rng.integers(1, 4)), dilation=int(rng.integers(1, 5)))
    images, kernel = (jnp.asarray(_array(rng, of)) for of in (shape, (side, side, 1, shape[-1])))
    expected, transpose = jax.vjp(functools.partial(depthwise._grouped, **statics), images, kernel)
    found, pull = jax.vjp(lambda *both: depthwise.depthwise_conv(*both, *statics.values()), images, kernel)
    _compare(found, expected)
    cotangents = jnp.asarray(_array(rng, expected.shape))
    for mine, theirs in zip(pull(cotangents), transpose(cotangents), strict=True):
        _compare(mine, theirs)
    return "depthwise"


def _try_adam(rng: np.random.Generator) -> str:
    import jax
    import jax.numpy as jnp
    import optax

    from minmax_jax.ops.cpu import tree_calls
    from minmax_jax.training import adam

    shapes = [tuple(rng.integers(0, 40, rng.integers(0, 4))) for _ in range(rng.integers(1, 6))]
    gradients, means, squares = ([jnp.asarray(_array(rng, (*shape, 1))) for shape in shapes] for _ in range(3))
    state = optax.ScaleByAdamState(jnp.int32(4), means, [square**2 for square in squares])
    found = adam.scale_by_adam((0.9, 0.999)).update(gradients, state)
    expected = optax.scale_by_adam(0.9, 0.999).update(gradients, state)
    jax.tree.map(_compare, found, expected)
    _compare(tree_calls.sum_of_squares(gradients), optax.tree.norm(gradients) ** 2)
    return "adam"


def _compare(found, expected) -> None:
    found, expected = np.asarray(found), np.asarray(expected)
    scale = 1 + np.abs(expected).max(initial=0)
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-4)


def _run(count: int, seed: int) -> None:
    import collections

    from minmax_jax.ops.cpu import library, native

    library._FLAGS = (*library._FLAGS[1:], *_FLAGS)
    assert native.is_available(), "the kernels cannot be built with the sanitizer"
    rng, counts = np.random.default_rng(seed), collections.Counter()
    for number in range(count):
        state = rng.bit_generator.state["state"]["state"]
        try:
            counts[(_try_conv, _try_depthwise, _try_max_pool, _try_adam)[number % 4](rng)] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}, call {number}, state {state}") from error
    print(dict(counts))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if _INSIDE in os.environ:
        _run(options.count, options.seed)
        return 0
    if not find_sanitizer():
        print("The compiler has no address sanitizer.")
        return 0
    done = start(options.count, options.seed)
    print(done.stdout, done.stderr[:6000])
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
