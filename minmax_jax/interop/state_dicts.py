"""State dicts of the published implementation and of ImageNet trunks, to and from this library's variables.

The published layout: a deep-stem ResNet at the top (`conv1`, `bn1`, ..., `layer1.0.conv1`, ...), the heads of the
localizer (`headseg`) and of the classifier (`cl32`), and the masks' `sigma` and `w` (omega). torchvision's trunks
have the same names, with another stem. Kernels there are OIHW and [out, in], here HWIO and [in, out].
"""

from collections.abc import Collection, Iterable
import dataclasses
import types
from typing import Any

import flax
import jax
import numpy as np

from minmax_jax.interop import resnet
from minmax_jax.interop.tensor_files import InteropError
from minmax_jax.training import batch_stats as stats_lib

Variables = dict[str, Any]

_HEADS = {"localizer_head": "headseg", "classifier_head": "cl32"}
_CONSTANTS = {"sigma": (1,), "w": (1,)}
_TRUNKS = ("trunk", "classifier_trunk")
# A number of batches in each batch norm; nothing reads it.
_COUNTER = "num_batches_tracked"


@dataclasses.dataclass(frozen=True)
class Published:
    """A whole checkpoint of the published implementation.

    Attributes:
        variables: "params" and "batch_stats", as in `TrainState.variables`.
        sigma: threshold of its masks.
        omega: steepness of its masks.
    """

    variables: Variables
    sigma: float
    omega: float


def from_published(tensors: dict[str, np.ndarray], variables: Variables) -> Published:
    """A whole checkpoint of the published implementation as variables of a model.

    Args:
        tensors: its state dict.
        variables: of the model, as in `TrainState.variables`, with one trunk; gives shapes only. Where each stream
            has statistics of its own, all get the checkpoint's.

    Raises:
        InteropError: listing every tensor that is missing, not in the model, or of another shape.
    """
    names = _names(_leaves(variables), resnet)
    _check(tensors, _shapes(variables, names) | _CONSTANTS)
    constants = {"sigma": float(tensors["sigma"][0]), "omega": float(tensors["w"][0])}
    return Published(_filled(tensors, variables, names), **constants)


def to_published(
    variables: Variables,
    *,
    sigma: float = 0.5,
    omega: float = 8.0,
    stream: str = stats_lib.WHOLE,
    family: types.ModuleType = resnet,
) -> dict[str, np.ndarray]:
    """The state dict of the published layout; `from_published` gives the same variables again.

    Args:
        variables: of a model with one trunk.
        sigma: threshold of the masks.
        omega: steepness of the masks.
        stream: whose running statistics are written, if each stream has its own. The layout has one set, so the other
            implementation computes something else in evaluation mode.
        family: as in `load_trunk`.

    Raises:
        InteropError: if the layout has no name for a variable: two trunks, or a trunk of another kind.

    Example:
        >>> import functools
        >>> import jax
        >>> import numpy as np
        >>> import minmax_jax as mm
        >>> from minmax_jax.interop import state_dicts
        >>> model = mm.create_model(mm.ResNet(stage_sizes=(1,), stage_strides=(1,), width=4), num_classes=3)
        >>> tx = mm.create_optimizer("sgd", 0.1)
        >>> create = functools.partial(mm.create_train_state, image_size=(32, 32), model=model, tx=tx)
        >>> shapes = jax.eval_shape(create, jax.random.key(0)).variables
        >>> zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        >>> tensors = state_dicts.to_published(zeros, sigma=0.4)
        >>> tensors["layer1.0.conv1.weight"].shape, round(float(tensors["sigma"][0]), 2)
        ((4, 8, 3, 3), 0.4)
    """
    tensors = {"sigma": np.float32([sigma]), "w": np.float32([omega])}
    for path, name in _names(_leaves(variables), family).items():
        if path[0] == "params" or path[1] == stream or stats_lib.is_shared(variables["batch_stats"]):
            tensors[name] = _to_tensor(_leaves(variables)[path], name)
        if name.endswith(".running_var"):
            tensors[name.replace("running_var", _COUNTER)] = np.zeros((), np.int64)
    return tensors


def load_trunk(tensors: dict[str, np.ndarray], variables: Variables, *, family: types.ModuleType = resnet) -> Variables:
    """The variables with a pretrained trunk (or two, where the classifier has its own); the heads do not change.

    Args:
        tensors: state dict of a trunk trained on ImageNet, or of the published implementation.
        variables: of the model, as in `TrainState.variables`.
        family: module of this package with the tensor names of the trunk, such as `interop.resnet`. timm's names for
            the same trunks are recognised.

    Raises:
        InteropError: listing every tensor that is missing, of another shape, or that belongs neither to the trunk nor
            to the layers that the heads replace.

    Example:
        A model of zeros, and a file whose trunk is full of ones:

        >>> import functools
        >>> import jax
        >>> import numpy as np
        >>> import minmax_jax as mm
        >>> from minmax_jax.interop import state_dicts
        >>> model = mm.create_model(mm.ResNet(stage_sizes=(1,), stage_strides=(1,), width=4), num_classes=3)
        >>> tx = mm.create_optimizer("sgd", 0.1)
        >>> create = functools.partial(mm.create_train_state, image_size=(32, 32), model=model, tx=tx)
        >>> shapes = jax.eval_shape(create, jax.random.key(0)).variables
        >>> zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        >>> tensors = {name: np.ones_like(tensor) for name, tensor in state_dicts.to_published(zeros).items()}
        >>> params = state_dicts.load_trunk(tensors, zeros)["params"]
        >>> float(params["trunk"]["stem_conv1"]["kernel"].min())
        1.0
        >>> float(params["localizer_head"]["modality_maps"]["kernel"].max())
        0.0
    """
    tensors = family.in_own_layout(tensors)
    paths = [path for path in _leaves(variables) if _part(path) in _TRUNKS]
    names = _names(paths, family, trunks=_TRUNKS)
    replaced = tuple(f"{head}." for head in _HEADS.values()) + family.REPLACED
    kept = {name: tensor for name, tensor in tensors.items() if not (name.startswith(replaced) or name in _CONSTANTS)}
    _check(kept, _shapes(variables, names))
    return _filled(tensors, variables, names)


def _leaves(variables: Variables) -> dict[tuple[str, ...], Any]:
    return flax.traverse_util.flatten_dict(variables)


def _part(path: tuple[str, ...]) -> str:
    """Trunk or head that a variable belongs to; statistics have their stream before it."""
    return path[1] if path[0] == "params" else path[2]


def _names(
    paths: Iterable[tuple[str, ...]], family: types.ModuleType, *, trunks: Collection[str] = _TRUNKS[:1]
) -> dict[tuple[str, ...], str]:
    """Name of each variable in the other layout, by path; all trunks have the names of one."""
    names = {path: _name(path[1 if path[0] == "params" else 2 :], family, trunks) for path in paths}
    unknown = ["/".join(path) for path, name in names.items() if name is None]
    if unknown:
        raise InteropError(
            f"The layout has one {family.__name__.rpartition('.')[2]} trunk and two WILDCAT heads; it has no name for"
            f" {', '.join(unknown)}."
        )
    return names


def _name(path: tuple[str, ...], family: types.ModuleType, trunks: Collection[str]) -> str | None:
    part, *modules, leaf = path
    if part in _HEADS and modules == ["modality_maps"]:
        return f"{_HEADS[part]}.to_modalities.{resnet.LEAVES[leaf]}"
    return family.tensor_name(modules, leaf) if part in trunks else None


def _to_tensor(variable: Any, name: str) -> np.ndarray:
    array = np.asarray(variable)
    if name.endswith("to_modalities.weight"):
        return array.T[:, :, None, None]
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T if array.ndim == 2 else array


def _to_variable(tensor: np.ndarray, name: str) -> np.ndarray:
    if name.endswith("to_modalities.weight"):
        return tensor[:, :, 0, 0].T
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T if tensor.ndim == 2 else tensor


def _shapes(variables: Variables, names: dict[tuple[str, ...], str]) -> dict[str, tuple[int, ...]]:
    """Shapes that the tensors of the named variables must have."""
    leaves = _leaves(variables)
    return {name: _to_tensor(leaves[path], name).shape for path, name in names.items()}


def _check(tensors: dict[str, np.ndarray], needed: dict[str, tuple[int, ...]]) -> None:
    given = {name: tensor.shape for name, tensor in tensors.items() if not name.endswith(_COUNTER)}
    problems = {
        "missing": [name for name in needed if name not in given],
        "not in the model": [name for name in given if name not in needed],
        "of another shape": [
            f"{name} {given[name]} instead of {shape}"
            for name, shape in needed.items()
            if given.get(name, shape) != shape
        ],
    }
    listed = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in problems.items() if names)
    if listed:
        raise InteropError(
            f"The state dict does not fit the model. Tensors {listed}. Check trunk, stem, width, stage sizes and"
            " modalities of the model, and the number of classes."
        )


def _filled(tensors: dict[str, np.ndarray], variables: Variables, names: dict[tuple[str, ...], str]) -> Variables:
    leaves = dict(_leaves(variables))
    for path, name in names.items():
        # A copy: on a CPU, an array may share memory with a state dict that is still in use. Not by jnp.array, which
        # compiles a program for each shape, and not by may_alias=False, which aliases all the same (JAX 0.10.2).
        leaves[path] = jax.device_put(np.array(_to_variable(tensors[name], name), leaves[path].dtype))
    return variables | flax.traverse_util.unflatten_dict(leaves)  # without batch norm, the statistics have no leaves
