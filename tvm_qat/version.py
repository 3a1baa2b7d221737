"""The version, without asking the package index on disk for it."""

__version__ = "0.1.0"
