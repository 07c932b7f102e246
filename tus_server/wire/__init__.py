"""Bytes and header fields <-> values. Pure."""
