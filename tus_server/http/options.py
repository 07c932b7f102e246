"""OPTIONS: one reply for both protocols, on every URL of uploads and on `*`."""

from tus_server.engine.engine import Engine
from tus_server.http.exchange import Exchange, Header
from tus_server.wire import tus
from tus_server.wire.limits import render_limits
from tus_server.wire.rufh import BODY_TYPE
from tus_server.wire.rufh_versions import NEWEST, find_version

_ACCEPT_PATCH = (b"accept-patch", b"%s, %s" % (tus.BODY_TYPE, BODY_TYPE))


def render_options(engine: Engine, exchange: Exchange) -> list[Header]:
    """Give what is told of the server (T34-T37, T79, R16-R19).

    Upload-Limit speaks of a new upload, in the words of the version the request names.
    """
    version = find_version(exchange.fields) or NEWEST
    expiry = engine.expiry
    lives_s = [s for s in (expiry.after_s, expiry.at_most_s) if s is not None]
    extensions = tus.extensions(
        expires=expiry.after_s is not None, has_trailers=exchange.has_trailers
    )
    return [
        *tus.render_options(max_size=engine.max_size, extensions=extensions),
        _ACCEPT_PATCH,
        render_limits(
            max_size=engine.max_size,
            max_append_size=engine.max_append_size,
            lifetime_key=version.lifetime_key or b"max-age",
            left_s=min(lives_s) if expiry.after_s is not None else None,
        ),
        *version.fields,
        # tus 1.0.0, in its own example: OPTIONS has it too (T4).
        tus.TUS_RESUMABLE,
    ]
