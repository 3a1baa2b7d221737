"""npz files that users give."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.errors import DAMAGED_ZIP, InputError, located

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
