"""tus-js-client in node, driven from tests."""
