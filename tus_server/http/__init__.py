"""ASGI: routes, handlers, bodies, errors."""
