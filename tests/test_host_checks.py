"""Values that hosts must have in common, with a second host that is made up; tests/test_pmap.py has a real one."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

import minmax_jax as mm
from minmax_jax.distributed import host_checks, hosts
from minmax_jax.runs.folder import digests
from tests import networks, splits


@pytest.fixture
def other(monkeypatch):
    """Values that the second host has instead of those of the first; "" for a marker's name."""
    values = {}

    def gather(items):
        return [*items, "" if isinstance(items[0], str) else items[0] | values]

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts, "gather_from_hosts", gather)
    return values


def test_hosts_that_agree(other, tmp_path):
    host_checks.check_equal({"config.batch_size": 16}, advice="Give all the same.")
    host_checks.check_shared_folder(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_single_host_compares_nothing(monkeypatch):
    monkeypatch.setattr(hosts, "gather_from_hosts", None)
    host_checks.check_equal({"a": 1}, advice="")
    host_checks.check_shared_folder(None)


def test_values_that_differ_are_named_with_both_values_and_the_advice(other):
    other["seed"] = 5
    with pytest.raises(host_checks.HostsDifferError, match="differ:\n  seed: 0 on host 0, 5 on host 1\nGive all"):
        host_checks.check_equal({"seed": 0, "batch_size": 8}, advice="Give all the same.")


def test_a_folder_that_is_not_shared(other, tmp_path, monkeypatch):
    def gather(items):
        name = next(iter(items[0])) if isinstance(items[0], dict) else ""
        return [*items, {name: "missing"} if name else ""]

    monkeypatch.setattr(hosts, "gather_from_hosts", gather)
    with pytest.raises(host_checks.HostsDifferError, match="'exists' on host 0, 'missing' on host 1"):
        host_checks.check_shared_folder(tmp_path)


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
def test_the_digest_of_a_split_depends_on_all_but_pixels(changes):
    split = splits.make_split([(40, 40)] * 4)
    other = dataclasses.replace(split, **changes)
    unread = dataclasses.replace(split, read_image=None, read_mask=None)
    assert digests.split_digest(split) == digests.split_digest(unread) != digests.split_digest(other)


def test_the_digest_of_a_state_depends_on_its_seed():
    def digest(seed):
        state = mm.create_train_state(
            jax.random.key(seed), model=networks.tiny_model(), tx=optax.sgd(0.1), image_size=(32, 32)
        )
        return digests.state_digest(state)

    assert digest(0) == digest(0) != digest(1)
