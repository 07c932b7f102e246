"""StateStore implementations."""
