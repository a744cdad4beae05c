"""What hosts must have in common, with a second host that is made up; tests/test_parallel.py has a real one."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from configs import synthetic
import minmax_jax as mm
from minmax_jax.distributed import host_checks, pmap
from tests import networks, splits


@pytest.fixture
def hosts(monkeypatch):
    """All that is compared; `other` holds what the second host says instead."""
    said = {"mine": {}, "other": {}}

    def gather(items):
        if isinstance(items[0], str):
            return [*items, ""]
        said["mine"] = items[0]
        return [*items, items[0] | said["other"]]

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(pmap, "gather_from_hosts", gather)
    return said


def _split(**changes):
    return dataclasses.replace(splits.make_split([(40, 40)] * 4), **changes)


def test_hosts_that_agree(hosts, tmp_path):
    host_checks.check_inputs(synthetic.get_config(), {"train": _split()}, tmp_path)
    assert hosts["mine"]["config.batch_size"] == 16
    assert hosts["mine"]["what host 0 wrote to the workdir"] == "there"
    assert not list(tmp_path.iterdir())


def test_a_single_host_compares_nothing(monkeypatch):
    monkeypatch.setattr(pmap, "gather_from_hosts", None)
    host_checks.check_inputs(None, None, None)
    host_checks.check_state(None)


@pytest.mark.parametrize(
    "changes",
    [
        {"names": ("image_0", "image_1", "image_3", "image_2")},
        {"labels": np.array([0, 1, 1, 1], np.int32)},
        {"class_names": ("b", "a")},
        {"sizes": np.array([(40, 40)] * 3 + [(40, 41)])},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_dataset(hosts, changes, tmp_path):
    config = synthetic.get_config()
    host_checks.check_inputs(config, {"test": _split()}, tmp_path)
    hosts["other"] = {"the test split": hosts["mine"]["the test split"]}
    with pytest.raises(host_checks.DisagreementError, match="differ:\n  the test split: '4 images, .* on host 1\nGive"):
        host_checks.check_inputs(config, {"test": _split(**changes)}, tmp_path)


def test_another_state(hosts):
    def check(seed):
        model, tx = networks.tiny_model(), optax.sgd(0.1)
        host_checks.check_state(mm.create_train_state(jax.random.key(seed), model=model, tx=tx, image_size=(32, 32)))

    check(0)
    hosts["other"] = hosts["mine"]
    check(0)
    with pytest.raises(host_checks.DisagreementError, match="differ:\n  the digest of the state: '.* on host 1\nGive"):
        check(1)
    hosts["other"] = {"the step to go on from": 7}
    with pytest.raises(host_checks.DisagreementError, match="the step to go on from: 0 on host 0, 7 on host 1"):
        check(0)
