"""The mask head: its initial value, the stages it reads, and the terms that train it."""

import jax
import jax.numpy as jnp
from minmax_jax.configs import synthetic
import numpy as np
import optax
import pytest

from minmax_jax.base.errors import ConfigError
from minmax_jax.models.mask_head import MaskHead
from minmax_jax.runs.building import methods
from minmax_jax.runs.building import options as options_lib
from tests import networks


def _stages(strides, size=32, channels=6):
    rng = np.random.default_rng(0)
    return {s: jnp.asarray(rng.normal(size=(2, size // s, size // s, channels)), jnp.float32) for s in strides}


def _class_maps(side, classes=3):
    return jnp.asarray(np.random.default_rng(1).normal(size=(2, side, side, classes)), jnp.float32)


def test_it_starts_as_the_class_maps_at_the_size_of_the_finest_stage():
    stages, class_maps, head = _stages((2, 4, 8, 16)), _class_maps(4), MaskHead(alignment="features")
    variables = head.init(jax.random.key(0), stages, class_maps)
    found = head.apply(variables, stages, class_maps)
    assert found.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(found[:, ::2, ::2], class_maps)  # features lie at multiples of their stride
    np.testing.assert_allclose(found[:, 1:6:2, ::2], (class_maps[:, :-1] + class_maps[:, 1:]) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("strides", "read"), [((2, 4, 8, 16, 32), {4, 8, 16}), ((8, 16), {8, 16}), ((2, 32), {32}), (None, {16})]
)
def test_which_stages_it_reads(strides, read):
    stages = _stages(strides) if strides else _stages((16,))[16]  # a trunk may return an array alone
    params = MaskHead().init(jax.random.key(0), stages, _class_maps(2))["params"]
    assert {name for name in params if name.startswith("stride")} == {f"stride{stride}" for stride in read}


def test_the_learned_map_is_the_same_for_all_classes():
    stages, class_maps, head = _stages((4, 8)), _class_maps(8), MaskHead(width=5)
    variables = head.init(jax.random.key(0), stages, class_maps)
    variables["params"]["mask"]["kernel"] = jnp.arange(5.0)[:, None]
    learned = np.asarray(head.apply(variables, stages, jnp.zeros_like(class_maps)))
    assert learned.std() > 0.1
    np.testing.assert_array_equal(learned, learned[..., :1].repeat(3, axis=-1))


@pytest.mark.parametrize(("flow_epoch", "learns"), [(0, True), (1, True), (2, False)])
def test_the_classifier_trains_it_from_the_epoch_on_in_which_the_gradient_flows(batch, flow_epoch, learns):
    """Two steps of one epoch each."""
    model = networks.tiny_model(mask_head=MaskHead(width=4))
    objective = networks.objective(gradient="flow", flow_epoch=flow_epoch)
    state, step = networks.start(model, objective, tx=optax.sgd(0.1))
    for _ in range(2):
        state, _ = jax.jit(step)(state, batch)
    assert state.params["mask_head"]["mask"]["kernel"].any() == learns


def test_class_maps_get_no_gradient_through_the_mask(batch):
    model = networks.tiny_model(mask_head=MaskHead(width=4))
    state, _ = networks.start(model, networks.objective(gradient="flow"))
    variables = {"params": state.params, "batch_stats": state.batch_stats["whole"]}
    images = batch["images"].astype(jnp.float32) / 127.5 - 1

    def mean_of_maps(params):
        _, maps = model.apply(variables | {"params": params}, images, method="localize")
        return jnp.mean(maps)

    gradients = jax.grad(mean_of_maps)(state.params)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradients["localizer_head"]))
    assert gradients["mask_head"]["mask"]["bias"].any()


@pytest.mark.parametrize(("method", "gradient"), [("minmax", "stop"), ("wildcat", "flow")])
def test_where_nothing_would_train_it_it_is_refused(method, gradient):
    config = synthetic.get_config()
    config.model.mask_head, config.method, config.mask.gradient = True, method, gradient
    with pytest.raises(
        ConfigError,
        match=rf"config.model.mask_head=True .* mask.gradient='{gradient}' of method='{method}' .*='flow'"
        r" with one of \('minmax',\), or set it to False",
    ):
        options_lib.read(config)


def test_another_method_can_train_it(monkeypatch):
    config = synthetic.get_config()
    config.model.mask_head, config.method, config.mask.gradient = True, "wildcat", "flow"
    entry = methods.METHODS["wildcat"]._replace(trains_through_masks=True)
    monkeypatch.setitem(methods.METHODS, "wildcat", entry)
    assert options_lib.read(config).model.mask_head
