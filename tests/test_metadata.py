"""What holds for all images of prepared data: one file, which older data lack."""

import json

import pytest

from minmax_jax.base.errors import UserError
from minmax_jax.data import metadata, readings


def test_what_is_written_is_read(tmp_path):
    written = metadata.Metadata(0.5, ("normal",), readings.Reading("percentiles", (2, 0)))
    assert written.to_json() == {
        "microns_per_pixel": 0.5,
        "background_classes": ["normal"],
        "reading": {"intensity": "percentiles", "channels": [2, 0]},
    }
    (tmp_path / "metadata.json").write_text(json.dumps(written.to_json()))
    assert metadata.read(tmp_path) == written


def test_the_defaults_are_left_out_and_older_data_have_them(tmp_path):
    assert metadata.Metadata().to_json() == {}
    assert metadata.read(tmp_path) == metadata.Metadata(0.0, (), readings.AS_STORED)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", '{"microns_per_pixel": "x"}', '{"microns_per_pixel": -1}', '{"microns_per_pixel": NaN}'),
        *('{"background_classes": "normal"}', '{"background_classes": [1]}', '{"reading": {"intensity": "full"}}'),
    ],
)
def test_a_damaged_file(tmp_path, text):
    (tmp_path / "metadata.json").write_text(text)
    with pytest.raises(UserError, match=r"is damaged \(metadata.json: .*Delete it and prepare it again"):
        metadata.read(tmp_path)
