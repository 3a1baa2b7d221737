"""Frameworks deprecate parts of their own that they import; here that is no error."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    for kind in ("DeprecationWarning", "FutureWarning", "PendingDeprecationWarning"):
        config.addinivalue_line("filterwarnings", f"ignore::{kind}")
