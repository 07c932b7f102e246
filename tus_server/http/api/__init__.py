"""The JSON API: uploads and sessions for applications, over the Broker.

FastAPI is imported with this package, so nothing but the composition root imports it, and only
for the first request to it.
"""

from tus_server.http.api.application import ApiOptions, api_app

__all__ = ["ApiOptions", "api_app"]
