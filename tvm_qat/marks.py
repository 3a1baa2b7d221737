"""What importers mark in a module for others to read: attributes of `main`.

VALUE_NAMES : how the model calls the results of its nodes, as lists by the node's name. Absent where a
node and its result have one name.
"""

from __future__ import annotations

VALUE_NAMES = "value_names"
