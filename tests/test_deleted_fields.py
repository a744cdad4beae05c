"""Runs of earlier versions: a deleted field is dropped at its default, and refused where it was used."""

import json

from minmax_jax.configs import synthetic
import pytest

from minmax_jax.base.errors import ConfigError
from minmax_jax.runs.building import fields
from minmax_jax.runs.folder import workdir


@pytest.mark.parametrize(
    ("name", "default", "used"),
    [
        ("evaluation.crf.enabled", False, True),
        ("refine.edge_source", "colors", "either"),
        ("refine.num_erasures", 0, 2),
    ],
)
def test_a_configuration_with_a_deleted_field(tmp_path, name, default, used):
    config = synthetic.get_config()
    path, content = tmp_path / "config.json", config.to_dict()
    *groups, field = name.split(".")
    group = content
    for part in groups:
        group = group[part]
    group[field] = default
    path.write_text(json.dumps(content))
    assert fields.flatten(workdir.read_config(tmp_path)) == fields.flatten(config)
    group[field] = used
    path.write_text(json.dumps(content))
    message = f"{path}: {name}={used!r} is deleted from this version, .* {name}={default!r} did. Remove the field"
    with pytest.raises(ConfigError, match=message):
        workdir.read_config(tmp_path)
