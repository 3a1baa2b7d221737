"""Options in a file: what is read, what takes its place, what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tvm_qat.errors import InputError
from tvm_qat.options import Options, options_of, read_config, split

TOML = 'rounding = "tflite"\nkeep_float = ["conv1", "head/*"]\nonly_int8 = ["Conv"]\n'
READ = Options(rounding="tflite", keep_float=("conv1", "head/*"), only_int8=("Conv",))


def written(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def test_json_and_toml_say_the_same(tmp_path: Path):
    document = {"rounding": "tflite", "keep_float": ["conv1", "head/*"], "only_int8": ["Conv"]}
    assert read_config(written(tmp_path / "c.json", json.dumps(document))) == READ
    toml = written(tmp_path / "c.toml", TOML)
    if sys.version_info >= (3, 11):
        assert read_config(toml) == READ
    else:
        with pytest.raises(InputError, match="write it as JSON"):
            read_config(toml)


def test_a_keyword_takes_the_place_of_what_the_file_says(tmp_path: Path):
    config = written(tmp_path / "c.json", json.dumps({"rounding": "tflite", "keep_float": ["a"]}))
    found = options_of({"config": config, "keep_float": ["b"], "rounding": None, "only_int8": []})
    assert found == Options(rounding="tflite", keep_float=("b",))
    assert options_of({}) == Options()


def test_the_importers_keywords_are_told_apart():
    imports, passes = split({"trust": True, "input_shapes": {"x": [1]}, "only_int8": ["Conv"]})
    assert imports == {"trust": True, "input_shapes": {"x": [1]}}
    assert passes == Options(only_int8=("Conv",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is malformed"),
        ("[]", "does not hold a table"),
        ('{"keep_floats": []}', r"'keep_floats', which is no option.*keep_float"),
        ('{"keep_float": "conv1"}', "keep_float is not a list of texts"),
        ('{"only_int8": [1]}', "only_int8 is not a list of texts"),
        ('{"rounding": ["tflite"]}', "rounding is not a text"),
        ('{"rounding": "upwards"}', r"rounding 'upwards' is not known; choose from"),
        ("[" * 100_000, "is malformed"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_name(tmp_path: Path, content: str, message: str):
    with pytest.raises(InputError, match=rf"c\.json: .*{message}"):
        read_config(written(tmp_path / "c.json", content))


def test_malformed_toml_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"c\.toml: (is malformed|TOML is read from)"):
        read_config(written(tmp_path / "c.toml", "keep_float = ["))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"missing\.json: cannot be read"):
        read_config(tmp_path / "missing.json")
    (tmp_path / "c.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is malformed"):
        read_config(tmp_path / "c.json")
