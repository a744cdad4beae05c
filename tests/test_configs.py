"""Every configuration is complete, every field is read somewhere, and mistakes are named."""

import ast
import dataclasses
import functools
import gc
import inspect
import pathlib

from minmax_jax.configs import common, cub, cub5, custom, glas, oxford, synthetic
import ml_collections
import numpy as np
import pytest

import minmax_jax as mm
from minmax_jax.base import errors
from minmax_jax.base.errors import UserError
from minmax_jax.data.preprocessing import Preprocessing
from minmax_jax.data.synthetic import SyntheticConfig
from minmax_jax.data.transforms import Augmentation
from minmax_jax.losses import LossOptions
from minmax_jax.masks import MaskOptions
from minmax_jax.minmax.erasing import ErasingOptions
from minmax_jax.minmax.objective import Objective
from minmax_jax.refinement import cache, decoder_training
from minmax_jax.refinement.crf import Crf
from minmax_jax.refinement.options import RefineOptions
from minmax_jax.runs.building import creation, deleted_fields, fields, methods
from minmax_jax.runs.building import options as options_lib
from minmax_jax.runs.building.run import build_run
from minmax_jax.training import optimizers, schedules

ROOT = pathlib.Path(__file__).resolve().parents[1]
_VARIANTS = {
    synthetic: ("", "erasing=0", "hard", "hard,erasing=4"),
    glas: ("", "erasing=0", "erasing=4", "parity", "maxmin", "cpu", "cpu,erasing=2", "prior", "scratch"),
    cub: ("", "erasing=0", "erasing=4", "parity", "cpu"),
    cub5: ("", "erasing=0", "erasing=4", "parity", "cpu"),
    custom: ("own", "own,scratch,erasing=2", "own,published"),
    oxford: ("", "erasing=0", "erasing=4", "parity", "cpu,erasing=2"),
}
ALL = {"common": common.get_config} | {
    module.__name__.rpartition(".")[2] + ":" * bool(variant) + variant: functools.partial(module.get_config, variant)
    for module, names in _VARIANTS.items()
    for variant in names
}


@pytest.mark.parametrize("name", ALL)
def test_configurations_have_the_same_fields(name):
    fields.check_fields(ALL[name](), common.get_config())


@pytest.mark.parametrize("name", [name for name in ALL if name != "common"])
def test_configurations_have_possible_values(name):
    options_lib.read(ALL[name](), num_devices=1, num_local_devices=1)


@pytest.fixture(autouse=True, scope="module")
def no_garbage_collection():
    """Python 3.11 miscounts its recursion where garbage is collected while a module is parsed."""
    gc.disable()
    yield
    gc.enable()


def _fields_read() -> set[str]:
    """Chains of attributes that the code reads, such as "config.model.resnet.width" and "data.cache_gib"."""
    read = set()
    for path in (*(ROOT / "minmax_jax").rglob("*.py"), *(ROOT / "experiments").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                read.add(ast.unparse(node))
    return read


def _is_read(name: str, read: set[str]) -> bool:
    """Whether a field is read by its whole name, from `config`, or from its group."""
    group = name.split(".")[-2] if "." in name else "config"
    field = name.rpartition(".")[2]
    return any(
        chain == f"{group}.{field}" or chain.endswith((f".{group}.{field}", f"config.{name}", f"_CONFIG.value.{name}"))
        for chain in read
    )


# Groups whose fields are the arguments of one function or dataclass, which the next test compares with them.
_HANDED_ON = (
    *("data.synthetic.", "loss.", "mask.", "erasing.", "optimizer.", "learning_rate."),
    *("evaluation.crf.", "refine."),
)
# Fields that are arguments of a dataclass by name, or that are read by a computed name.
_BY_NAME = {field.name for kind in (Preprocessing, Augmentation) for field in dataclasses.fields(kind)}
_BY_NAME |= {"num_train", "num_validation", "num_test", "train_fraction", "train_per_class", "subset_seed"}


def _unread(names) -> list[str]:
    read = _fields_read()
    return [
        name
        for name in names
        if not name.startswith(_HANDED_ON)
        and not _is_read(name, read)
        and not (name.startswith("data.") and name.removeprefix("data.") in _BY_NAME)
    ]


def test_every_field_is_read_somewhere():
    assert _unread(fields.flatten(common.get_config())) == []


def test_a_field_that_nobody_reads_is_noticed():
    names = ["model.alphabet", "data.colour_space", "evaluation.tta", "train.dtype", "model.epochs", "nobody"]
    assert _unread(names) == names


def _fields_taken(kind: type, group: dict, prefix: str = "") -> set[str]:
    """The fields that an option dataclass takes from a group: its own, and those of dataclasses in it."""
    found = set()
    for field in dataclasses.fields(kind):
        if not dataclasses.is_dataclass(field.type):
            found |= {f"{prefix}{field.name}"} if field.name in group else set()
        elif field.name in group:
            found |= _fields_taken(field.type, group[field.name], f"{prefix}{field.name}.")
        else:
            found |= _fields_taken(field.type, group, prefix)
    return found


def test_every_field_is_an_option():
    """A field that no option dataclass takes would be ignored without a word."""
    config = common.get_config().to_dict()
    taken = _fields_taken(options_lib.RunOptions, config)
    for entry in methods.METHODS.values():
        taken |= _fields_taken(entry.options, config)
    assert set(fields.flatten(common.get_config())) == taken


def test_option_groups_have_the_defaults_of_their_dataclasses():
    """A default that stands in a configuration and in a dataclass is the same number."""
    config = common.get_config()
    config.data.dataset = "synthetic"
    assert options_lib.read(config).method_options == Objective()
    assert options_lib.read(config).refine == RefineOptions()
    head = mm.heads.WildcatHead(num_classes=2)
    for name in ("modalities", "k_max", "k_min", "alpha", "dropout"):
        assert getattr(head, name) == config.model[name]
    assert mm.MinMaxNet.classifier_scale == config.model.classifier_scale
    optimizer = inspect.signature(optimizers.create_optimizer).parameters
    rate = inspect.signature(schedules.create_learning_rate).parameters
    for group, parameters in ((config.optimizer, optimizer), (config.learning_rate, rate)):
        for name, value in group.items():
            if name in parameters and parameters[name].default is not inspect.Parameter.empty:
                assert parameters[name].default == value, name


def test_values_of_fields_that_are_gone_are_those_that_are_used():
    found = {"loss": LossOptions(), "erasing": ErasingOptions(), "data.synthetic": SyntheticConfig()}
    found["evaluation.crf"] = Crf(num_iterations=1, gaussian_sigma=1.0, bilateral_sigma=1.0, color_sigma=1.0)
    used = {
        f"{group}.{name}": list(value) if isinstance(value, tuple) else value
        for group, options in found.items()
        for name, value in dataclasses.asdict(options).items()
    }
    used |= {"refine.width": creation.create_decoder("resnet50").width}
    used |= {f"refine.{name.lower().strip('_')}": value for name, value in vars(decoder_training).items()}
    used |= {"refine.seed_power": cache._SEED_POWER, "refine.background_share": cache._BACKGROUND_SHARE}
    for name, value in deleted_fields.FIELDS.items():
        assert name not in fields.flatten(common.get_config())
        if name in deleted_fields._OF_DELETED_CODE:
            continue
        if name.partition(".")[0] in ("loss", "erasing", "refine") or name.startswith(("data.", "evaluation.crf.")):
            assert used[name] == value, name


def test_a_field_that_is_gone_is_no_spelling_mistake():
    config = synthetic.get_config()
    config.optimizer.beta1, config.compilation_cache, config.learning_rate.warmup_epochs = 0.8, "off", 1
    with pytest.raises(errors.ConfigError) as error:
        fields.check_fields(config, common.get_config())
    assert str(error.value).splitlines() == [
        "config.compilation_cache is gone. Set the environment variable JAX_COMPILATION_CACHE_DIR to a folder, or"
        " JAX_ENABLE_COMPILATION_CACHE to false.",
        "config.learning_rate.warmup_epochs is gone: it is 0 in every run. Set config.learning_rate.warmup_share, a"
        " share of the training.",
        "config.optimizer.beta1 is gone: it is 0.9 in every run. Leave it out.",
    ]


# The publication's table of recipes: what all have in common, then what differs.
_COMMON = {
    "batch_size": 8,
    "data.crop_size": 480,
    "data.flip_horizontal": True,
    "data.stain_normalization": "none",
    "data.stain_augmentation": 0.0,
    "model.trunk": "resnet101",
    "model.resnet.stem": "deep",
    "model.separate_trunks": False,
    "model.k_max": 0.09,
    "model.k_min": 0.09,
    "model.alpha": 0.0,
    "model.modalities": 5,
    "model.classifier_scale": 0.5,
    "loss.background": "surrogate",
    "loss.background_weight": 1.0,
    "loss.background_gradient": "all",
    "loss.whole_weight": 0.0,
    "loss.random_weight": 0.0,
    "loss.area_weight": 0.0,
    "loss.size_weight": 0.0,
    "mask.omega": 8.0,
    "mask.sigma": 0.5,
    "mask.sigma_growth": 0.0,
    "mask.gradient": "stop",
    "mask.alignment": "corners",
    "mask.range": "extremes",
    "erasing.num_erasures": 4,
    "erasing.start_epoch": 1,
    "erasing.loss_weight": "one",
    "optimizer.name": "sgd",
    "optimizer.weight_decay": 1e-5,
    "learning_rate.schedule": "step",
    "learning_rate.peak": 1e-3,
    "learning_rate.every": 40,
    "learning_rate.floor": 1e-7,
    "train.epochs": 400,
    "train.eval_every": 1,
    "evaluation.selection": "classification_error",
    "evaluation.threshold": 0.5,
    "evaluation.flips": False,
}
_NATURAL = {
    "data.min_side": 500,
    "data.padding": 0.0,
    "data.flip_vertical": False,
    "data.brightness": 0.0,
    "data.contrast": 0.0,
    "data.saturation": 0.0,
    "data.hue": 0.0,
    "model.dropout": 0.85,
    "evaluation.crf.num_iterations": 5,
    "evaluation.crf.gaussian_sigma": 5.0,
    "evaluation.crf.bilateral_sigma": 19.0,
    "evaluation.crf.color_sigma": 11.0,
}
_PUBLISHED = {
    "glas": {
        "data.dataset": "glas",
        "data.min_side": 0,
        "data.padding": 0.5,
        "data.flip_vertical": True,
        "data.brightness": 0.5,
        "data.contrast": 0.5,
        "data.saturation": 0.5,
        "data.hue": 0.05,
        "model.dropout": 0.75,
        "evaluation.crf.num_iterations": 2,
        "evaluation.crf.gaussian_sigma": 3.0,
        "evaluation.crf.bilateral_sigma": 13.0,
        "evaluation.crf.color_sigma": 3.0,
    },
    "cub": {"data.dataset": "cub"} | _NATURAL,
    "cub5": {"data.dataset": "cub5"} | _NATURAL,
    "oxford": {"data.dataset": "oxford_flowers"} | _NATURAL,
}
_MAXMIN = {
    "loss.background_weight": 1e-7,
    "loss.size_weight": 1.0,
    "loss.size_bounds": [0.0, 1.0],
    "mask.sigma": 0.15,
    "mask.sigma_growth": 0.001,
    "mask.sigma_limit": 0.2,
    "mask.omega": 5.0,
    "mask.gradient": "flow",
    "erasing.num_erasures": 0,
}
_PARITY = {
    "model.shared_statistics": True,
    "model.unbiased_variance": True,
    "model.dropout": 0.0,
    "mask.normalization": "batch",
    "mask.alignment": "corners",
}


@pytest.mark.parametrize(
    "name, values",
    [(name, _COMMON | values) for name, values in _PUBLISHED.items()]
    + [
        (f"{name}:erasing={r}", _COMMON | values | {"erasing.num_erasures": r})
        for name, values in _PUBLISHED.items()
        for r in (0, 4)
    ]
    + [(f"{name}:parity", _COMMON | values | _PARITY) for name, values in _PUBLISHED.items()]
    + [("glas:maxmin", _COMMON | _PUBLISHED["glas"] | _MAXMIN)],
)
def test_published_values(name, values):
    config = fields.flatten(ALL[name]())
    assert {field: config[field] for field in values} == values


def test_recipes_from_scratch_put_features_where_they_lie():
    for config in (glas.get_config("scratch"), custom.get_config("own,scratch"), synthetic.get_config()):
        assert options_lib.read(config).method_options.mask.alignment == "features"
    assert glas.get_config("scratch,parity").mask.alignment == "corners"


@pytest.mark.parametrize(
    "config, variant, erasures",
    [(synthetic, "fine", 4), (oxford, "cpu", 2), (glas, "cpu", 4), (cub, "cpu", 3), (custom, "published", 2)],
)
def test_the_order_of_variants_does_not_matter(config, variant, erasures):
    name = "own," if config is custom else ""
    for variants in (f"{variant},erasing={erasures}", f"erasing={erasures},{variant}"):
        assert config.get_config(name + variants).erasing.num_erasures == erasures
    for variants in ("published,parity", "parity,published"):
        assert custom.get_config(f"own,{variants}").model.shared_statistics


def test_sigma_of_the_follow_up_rises_by_the_epoch():
    objective = dataclasses.replace(options_lib.read(glas.get_config("maxmin")).method_options, steps_per_epoch=8)
    at_epochs = [float(objective.mask.threshold(objective.epoch(8 * epoch + 7))) for epoch in (0, 1, 49, 50, 60)]
    assert at_epochs == pytest.approx([0.15, 0.151, 0.199, 0.2, 0.2])


def test_sigma_changes_by_its_growth_and_stops_at_its_limit():
    options = MaskOptions(sigma=0.15, sigma_growth=0.03, sigma_limit=0.2)
    assert [float(options.threshold(epoch)) for epoch in range(4)] == pytest.approx([0.15, 0.18, 0.2, 0.2])
    falling = MaskOptions(sigma=0.5, sigma_growth=-0.2, sigma_limit=0.2)
    assert [float(falling.threshold(epoch)) for epoch in range(3)] == pytest.approx([0.5, 0.3, 0.2])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model.pretrained": ""}, r"frozen_norm=True keeps .*model.pretrained is empty: name weights"),
        ({"data.crop_size": 100}, "crop_size=100 must be a multiple of the output stride 16 .*try 96 or 112"),
        ({"model.output_stride": 0, "data.crop_size": 100}, "output stride 32 .*try 96 or 128"),
        (
            {
                **{"model.trunk": "resnet18", "model.resnet.stage_strides": (1, 3, 1, 1), "model.output_stride": 0},
                **{"model.frozen_norm": False, "model.frozen_stride": 0},
            },
            r"needs an output stride that divides 32, not 12: change model.resnet.stage_strides=\[1, 3, 1, 1\]",
        ),
        ({"data.crop_size": 224, "model.output_stride": 32}, None),
        ({"data.crop_size": 100, "mask.alignment": "corners"}, None),
        ({"data.crop_size": 0}, None),
    ],
)
def test_what_goes_wrong_without_a_word(changes, message):
    """Batch norm that stays the identity, and class maps that are put where they are not."""
    config = custom.get_config("own")
    config.update_from_flattened_dict(changes)
    check = functools.partial(options_lib.read, config, num_devices=1, num_local_devices=1)
    if message is None:
        assert check().model.trunk == "efficientnet_lite0"
        return
    with pytest.raises(errors.ConfigError, match=message):
        check()


def test_missing_unknown_and_mistyped_fields_are_named_together():
    given = synthetic.get_config().to_dict() | {"batchsize": 4, "seed": "zero"}
    del given["data"]["scale"]
    with pytest.raises(errors.ConfigError) as error:
        fields.check_fields(ml_collections.ConfigDict(given), common.get_config())
    assert str(error.value).splitlines() == [
        "config.data.scale is missing; its default is 1.0",
        "config.batchsize is not a field; did you mean config.batch_size?",
        "config.seed='zero' is a str, not an int",
    ]


def test_a_number_in_place_of_a_group_is_one_mistake():
    given = synthetic.get_config().to_dict() | {"mask": 5}
    given["loss"]["size_bounds"] = 0.3
    with pytest.raises(errors.ConfigError) as error:
        fields.check_fields(ml_collections.ConfigDict(given), common.get_config())
    assert str(error.value).splitlines() == [
        "config.mask=5 is no group of fields",
        "config.loss.size_bounds=0.3 is a float, not a tuple",
    ]


def test_impossible_values_of_several_groups_are_named_together():
    config = synthetic.get_config()
    changes = {"method": "acol", "optimizer.name": "lion", "batch_size": 0, "train.epochs": 0, "train.log_every": 0}
    config.update_from_flattened_dict(changes | {"data.scale": 0.0, "data.hue": 0.6})
    with pytest.raises(errors.ConfigError) as error:
        options_lib.read(config)
    found = [line.partition("=")[0] for line in str(error.value).splitlines()]
    wrong = ("method", "data.scale", "data.hue", "optimizer.name", "train.epochs", "train.log_every")
    assert found == [f"config.{name}" for name in wrong]
    config = synthetic.get_config()
    config.update_from_flattened_dict({"loss.background": "other", "mask.omega": -1.0})
    with pytest.raises(errors.ConfigError, match=r"config.loss.background='other' .*\n.*config.mask.omega=-1.0 "):
        options_lib.read(config)


@pytest.mark.parametrize("value", [True, "1", None, 1.5])
def test_a_whole_number_is_no_other_type(value):
    given = ml_collections.ConfigDict(synthetic.get_config().to_dict() | {"seed": value})
    with pytest.raises(errors.ConfigError, match="config.seed="):
        fields.check_fields(given, common.get_config())


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("data.dataset", "imagenet", "must be one of"),
        ("data.stain_normalization", "vahadane", "must be one of"),
        ("model.trunk", "resnet152", "must be one of"),
        ("model.resnet.stem", "shallow", "must be one of"),
        ("model.dtype", "float16", "must be one of"),
        ("optimizer.name", "lion", "must be one of"),
        ("learning_rate.schedule", "linear", "must be one of"),
        ("evaluation.selection", "f1_foreground", "must be one of"),
        (
            "evaluation.selection",
            "joint_error",
            "must be one of .'classification_error', 'balanced_error', 'last'",
        ),
        ("learning_rate.schedule", "multistep", "must be one of .'step', 'cosine'."),
        ("batch_size", 0, "must be at least 1"),
        ("batch_size", 2**40, "must be a number from -2.14748e\\+09 to 2.14748e\\+09"),
        ("data.cache_gib", float("inf"), "must be a number from -3.40282e\\+38 to 3.40282e\\+38"),
        ("loss.background_weight", 1e300, "must be a number from"),
        ("method", "acol", "must be one of .'minmax', 'wildcat', 'cam'."),
        ("batch_size", 6, "must be a multiple of the 4 devices; try 4 or 8"),
        ("batch_size", 2, "must be a multiple of the 4 devices; try 4."),
        ("evaluation.batch_size", 3, "must be a multiple of the 4 devices"),
        ("train.accumulation", 3, "multiple of the 4 devices times config.train.accumulation=3; try 12 or 24."),
        ("train.accumulation", 0, "config.train.accumulation=0 must be at least 1"),
        ("data.crop_size", 31, "must be from 32"),
        ("data.crop_size", 31, "or 0"),
        ("data.max_side", 31, "must be from 32 to 65536, or 0"),
        ("data.microns_per_pixel", -0.5, "must be from 0.001 to 1000.0, or 0"),
        ("data.min_side", 600, "must be at least min_side=600"),
        ("data.train_fraction", 0.0, "must be from 1e-09 to 1"),
        ("data.synthetic.part_share", 1.0, "config.data.synthetic.part_share=1.0 must be a share"),
        ("data.synthetic.body_contrast", 1.5, "config.data.synthetic.body_contrast=1.5 must be a share"),
        ("data.train_fraction", 0.5, "data.train_per_class=3 exclude each other"),
        ("data.scale", 0.0, "must be from 0.001"),
        ("data.hue", 0.6, "must be from 0 to 0.5"),
        ("data.stain_augmentation", 1.5, "must be from 0 to 1"),
        ("model.dropout", 1.0, "must be from 0"),
        ("train.epochs", 0, "must be at least 1"),
        ("evaluation.threshold", 0.0, "evaluation.threshold=0.0 must be from 1e-06"),
        ("erasing.num_erasures", -1, "must be from 0"),
        ("learning_rate.peak", float("nan"), "must be at least 0"),
        ("evaluation.crf.num_iterations", -1, "must be from 0"),
        ("evaluation.crf.color_sigma", 0.0, "must be at least 0.001"),
        ("model.resnet.stage_sizes", ("a",), "must be whole numbers of at least 1"),
        ("evaluation.scales", (), "must name at least one size"),
        ("model.resnet.stage_strides", (1, 2), "needs one stride for each of the 3 stages"),
    ],
)
def test_impossible_values_are_named(field, value, message):
    config = synthetic.get_config()
    config.model.resnet.stage_sizes, config.model.resnet.stage_strides = (1, 1, 1), (1, 1, 1)
    config.data.max_side, config.data.train_per_class = 500, 3
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=message) as error:
        options_lib.read(config, num_devices=4, num_local_devices=4)
    assert f"{field.rpartition('.')[2]}=" in str(error.value)


def test_all_numbers_of_a_group_that_are_out_of_their_range_are_named_at_once():
    config, nan = synthetic.get_config(), float("nan")
    wrong = {
        "data.cache_gib": (-1.0, "at least 0"),
        "data.crop_size": (31, "from 32 to 8192, or 0"),
        "data.microns_per_pixel": (nan, "from 0.001 to 1000.0, or 0"),
        "data.scale": (0.0, "from 0.001 to 8"),
        "data.min_side": (8193, "from 0 to 8192"),
        "data.max_side": (31, "from 32 to 65536, or 0"),
        "loss.background_weight": (-1.0, "at least 0"),
        "loss.area_weight": (nan, "at least 0"),
        "loss.area_target": (1.5, "from 0 to 1"),
        "refine.num_steps": (0, "at least 1"),
        "refine.edge_weight": (-2.0, "at least 0"),
        "refine.cache_gib": (0.0, "at least 1e-09"),
    }
    config.update_from_flattened_dict({name: value for name, (value, _) in wrong.items()})
    # The group around another is built from it, and not where that cannot be built.
    with pytest.raises(errors.ConfigError) as error:
        options_lib.read(config)
    expected = {f"config.{name}={value!r} must be {what}." for name, (value, what) in wrong.items()}
    around = {name for name in expected if name.startswith(("config.data.c", "config.data.mic"))}
    assert set(str(error.value).splitlines()) == expected - around
    config.data = synthetic.get_config().data
    config.data.update({name: wrong[f"data.{name}"][0] for name in ("cache_gib", "crop_size", "microns_per_pixel")})
    with pytest.raises(errors.ConfigError) as error:
        options_lib.read(config)
    assert {line for line in str(error.value).splitlines() if ".data." in line} == around


def test_few_samples_are_those_of_training_only():
    from minmax_jax.runs.building import data_splits

    config = synthetic.get_config()
    config.update_from_flattened_dict({"data.num_train": 40, "data.train_fraction": 0.2, "data.num_test": 12})
    parts = data_splits.create_splits(options_lib.read(config).data)
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [8, 256, 12]
    config.update_from_flattened_dict({"data.train_fraction": 1.0, "data.train_per_class": 3})
    fewer = data_splits.create_splits(options_lib.read(config).data)["train"]
    np.testing.assert_array_equal(np.bincount(fewer.labels), [3] * 4)
    assert set(parts["train"].names) < set(fewer.names)
    config.data.train_per_class = 11
    with pytest.raises(UserError, match="config.data.train_per_class=11"):
        data_splits.create_splits(options_lib.read(config).data)


def test_a_control_permutes_the_labels_of_training_alone():
    from minmax_jax.runs.building import data_splits

    config = synthetic.get_config()
    before = data_splits.create_splits(options_lib.read(config).data)
    config.data.permute_labels = True
    after = data_splits.create_splits(options_lib.read(config).data)
    # Each image gets the label of another: about a quarter of the four classes agree by chance.
    assert after["train"].names == before["train"].names
    np.testing.assert_array_equal(np.bincount(after["train"].labels), [128] * 4)
    assert 0.15 < np.mean(after["train"].labels == before["train"].labels) < 0.35
    for split in ("validation", "test"):
        np.testing.assert_array_equal(after[split].labels, before[split].labels)


def test_own_data_needs_its_name_and_no_folds():
    config = custom.get_config()
    config.data.folds = "folds"
    with pytest.raises(errors.ConfigError, match=r"(?s)data.name is empty.*data.folds='folds' must be empty"):
        options_lib.read(config, num_devices=1, num_local_devices=1)


@pytest.mark.parametrize("module, folds", [(glas, "folds"), (cub, "")])
def test_a_split_by_patients_is_for_glas_without_split_files(module, folds):
    config = module.get_config()
    config.data.update({"split": "patients", "folds": folds})
    with pytest.raises(errors.ConfigError, match="config.data.split='patients' is for"):
        options_lib.read(config, num_devices=1, num_local_devices=1)


def test_evaluation_over_flips_needs_flips_in_training():
    config = synthetic.get_config()
    config.update_from_flattened_dict({"evaluation.flips": True, "data.flip_horizontal": False})
    options_lib.read(config, num_devices=1, num_local_devices=1)  # there is the other
    config.data.flip_vertical = False
    with pytest.raises(errors.ConfigError, match="config.evaluation.flips=True"):
        build_run(config)


def test_the_first_word_of_the_variant_names_own_data():
    config = custom.get_config("cpu,scratch,erasing=3")
    assert (config.data.name, config.model.resnet.width, config.erasing.num_erasures) == ("cpu", 24, 3)


def test_unknown_variants_are_refused():
    with pytest.raises(
        ValueError, match="variant 'gpu' is unknown; there are: cpu, maxmin, prior, scratch, parity, erasing=R"
    ):
        glas.get_config("gpu")


def test_variants_change_what_they_say():
    assert glas.get_config("scratch").data.scale == 0.25
    assert synthetic.get_config("erasing=0").erasing.num_erasures == 0
    plain, hard = (fields.flatten(synthetic.get_config(variant)) for variant in ("", "hard"))
    changed = {name.removeprefix("data.synthetic.") for name in plain if plain[name] != hard[name]}
    assert changed == {"texture_contrast", "part_share", "body_contrast"}


def test_the_fast_variant_keeps_the_first_layers_and_trains_less():
    plain, fast = (fields.flatten(custom.get_config(name)) for name in ("pets", "pets,fast"))
    assert {name: fast[name] for name in plain if fast[name] != plain[name]} == {
        "model.frozen_stride": 8,
        "train.epochs": 4,
    }
