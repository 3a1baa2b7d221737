"""npz files in and out."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.errors import DAMAGED_ZIP, InputError, located
from tvm_qat.package.files import write_atomically

Array = npt.NDArray[Any]


def read_npz(path: str) -> dict[str, Array]:
    """All arrays of the file. Raises InputError for anything that is no npz file of plain arrays."""
    try:
        with open(path, "rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                reason = "holds one array without a name"
                raise InputError(located(reason, file=path, remedy="write it with numpy.savez"))
            return {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise InputError(located(f"cannot be read: {error.strerror or error}", file=path)) from None
    except (*DAMAGED_ZIP, KeyError) as error:
        reason = f"is not an npz file of plain arrays: {error}"
        raise InputError(located(reason, file=path, remedy="write it with numpy.savez")) from None


def write_npz(path: str, arrays: Mapping[str, Array]) -> None:
    """The arrays by their names; whole or not at all."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    write_atomically(path, buffer.getvalue())
