"""`tus-server serve`: run the server."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address to listen on. TUS_HOST")
    ] = None,
    port: Annotated[
        str | None, typer.Option(metavar="PORT", help="Port; 0 takes any free one. TUS_PORT")
    ] = None,
    base_path: Annotated[
        str | None, typer.Option(metavar="PATH", help="Path of the creation URL. TUS_BASE_PATH")
    ] = None,
    data_dir: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder of everything the server keeps. TUS_DATA_DIR"),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Largest upload, such as '10 GiB'. TUS_MAX_SIZE"),
    ] = None,
    behind_proxy: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Proxies to believe: addresses, networks, unix. TUS_BEHIND_PROXY"
        ),
    ] = None,
    cors_origins: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Origins whose pages may use the server. TUS_CORS_ORIGINS"
        ),
    ] = None,
    durability: Annotated[
        str | None,
        typer.Option(metavar="full|relaxed", help="Whether to survive a power cut. TUS_DURABILITY"),
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option(metavar="auto|console|json", help="Form of the log. TUS_LOG_FORMAT"),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(
            metavar="debug|info|warning|error", help="Least severe line to log. TUS_LOG_LEVEL"
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file with settings. TUS_CONFIG"),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(metavar="N", help="Processes, with Postgres and S3. TUS_WORKERS"),
    ] = None,
    migrate: Annotated[
        bool | None,
        typer.Option(
            "--migrate", help="Bring the tables in Postgres up to date first. TUS_MIGRATE"
        ),
    ] = None,
) -> None:
    """Run the server until it is told to stop (Ctrl-C, SIGTERM).

    Nothing needs to be configured: it listens on 127.0.0.1:8080, takes uploads at /files/ and
    keeps them in ./tus-data. With state in Postgres and files in S3 it takes several processes and
    machines. Every setting is also a variable TUS_* and a key in the TOML file;
    flags win over variables, variables over the file.
    """
    import structlog

    from tus_server.logs import configure_logging
    from tus_server.settings import idle_settings, load_settings, unknown_environment

    # Numbers are text up to here, so that every wrong value gets the sentence of its setting.
    settings = load_settings(
        config,
        workers=workers,
        migrate=migrate,
        host=host,
        port=port,
        base_path=base_path,
        data_dir=data_dir,
        max_size=max_size,
        behind_proxy=behind_proxy,
        cors_origins=cors_origins,
        durability=durability,
        log_format=log_format,
        log_level=log_level,
    )
    configure_logging(settings.log_format, settings.log_level)
    log = structlog.get_logger()
    for sentence in unknown_environment() + idle_settings(settings):
        log.warning(sentence)

    if settings.workers == 1:
        from tus_server.app import run

        raise typer.Exit(run(settings))

    from tus_server.app import prepare, run_worker
    from tus_server.supervisor import supervise

    raise typer.Exit(supervise(settings, prepare=prepare, run_worker=run_worker))
