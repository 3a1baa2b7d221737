"""Keeps fixed remarks of TVM's C++ code, which say nothing to a user, off the terminal.

They are written to file descriptor 2 itself: whenever a VM is saved or loaded, and beside errors
that we raise: for a CPU that LLVM does not know, and for a module that stays half built.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_CHATTER = (
    b"Warning: Scope Saving",
    b"Warning: Scope Loaded",
    b"Error: Using LLVM",
    b"Warning: Unable to detect CUDA version",
    b"Warning: BlockBuilder destroyed with remaining blocks",
    b"Warning: Fast mode segfaults when there are out-of-bounds indices",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Drop these lines from stderr; whatever else is written in between is passed on afterwards."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        kept = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            for line in held:
                if not any(chatter in line for chatter in _CHATTER):
                    os.write(2, line)
