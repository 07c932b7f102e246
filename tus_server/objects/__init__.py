"""ObjectStore implementations."""
