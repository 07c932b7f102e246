"""Resumable uploads: tus 1.0.0 over SQLite and local disk."""

__version__ = "0.1.0"
