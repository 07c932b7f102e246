"""What is for the application alone, behind its guard: the JSON API, and for Uppy's S3 plugin."""

from starlette.types import ASGIApp

from tus_server import __version__
from tus_server.engine.engine import Engine
from tus_server.http.brokers import Brokers, UrlOptions
from tus_server.http.guard import Guard, GuardOptions
from tus_server.http.lazily import Lazily
from tus_server.http.places import API, COMPANION
from tus_server.settings import Settings
from tus_server.wire.cors import Origins
from tus_server.wire.forwarded import TrustedProxies


def make_guarded(settings: Settings, engine: Engine) -> dict[str, ASGIApp]:
    """Give the applications by their place; none where TUS_API is off."""
    if settings.api == "off":
        return {}
    brokers = Brokers(
        engine,
        UrlOptions(
            base_path=settings.base_path,
            public_url=settings.public_url,
            proxies=TrustedProxies(settings.proxies),
        ),
    )

    # FastAPI takes half a second and 20 MiB, which a server that takes uploads only does not need.
    def make_api() -> ASGIApp:
        from tus_server.http.api import ApiOptions, api_app

        options = ApiOptions(
            version=__version__,
            body_idle_timeout_s=settings.body_idle_timeout_s,
            has_token=settings.api_token is not None,
        )
        return api_app(engine, brokers, options)

    def make_companion() -> ASGIApp:
        from tus_server.http.companion import companion_app

        return companion_app(brokers, idle_timeout_s=settings.body_idle_timeout_s)

    guard = GuardOptions(
        token=settings.api_token,
        is_fronted=bool(settings.public_url or settings.proxies),
        origins=Origins(settings.origins),
        credentials=settings.cors_credentials,
        max_header_bytes=settings.max_header_bytes,
        allow_headers=settings.cors_allow_headers,
        expose_headers=settings.cors_expose_headers,
    )
    return {
        API: Guard(Lazily(make_api), guard),
        COMPANION: Guard(Lazily(make_companion), guard),
    }
