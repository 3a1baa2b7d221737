from __future__ import annotations

from pathlib import Path

import numpy as np

from tvm_qat.package.files import write_npz


def test_arrays_keep_names_that_numpy_takes_for_its_own_options(tmp_path: Path):
    arrays = {"file": np.arange(3), "allow_pickle": np.ones((2, 2)), "a/b:0": np.zeros(())}
    write_npz(tmp_path / "data.npz", arrays)
    with np.load(tmp_path / "data.npz", allow_pickle=False) as found:
        assert set(found.files) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
    assert [path.name for path in tmp_path.iterdir()] == ["data.npz"]
