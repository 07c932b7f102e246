"""Settings of this node: its folder, its name, its processes, their memory and log."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ByteSize

from tus_server.settings import values
from tus_server.settings.fields import MIB, OPTIONAL, WORD, count, seconds, setting

_NodeName = Annotated[str, AfterValidator(values.check_node_name)]


class NodeSettings(BaseModel):
    """What a machine has of its own."""

    data_dir: Annotated[Path, BeforeValidator(values.parse_path)] = setting(
        "Folder of everything the server keeps; one server per folder",
        "give the path of a folder",
        default=Path("./tus-data"),
    )
    node_name: Annotated[_NodeName | None, OPTIONAL] = setting(
        "Name of this node in the ids of its uploads, by which a balancer finds it",
        "give 1 to 16 of a-z, 0-9 and -, another one for each node",
        default=None,
        shown="a random one, kept in the data dir",
    )
    workers: int = count(
        "Processes that serve, with Postgres and S3; SQLite takes one", default=1, most=256
    )
    tail_policy: Annotated[Literal["strict", "rewind", "shared"], WORD] = setting(
        "Bytes too few for an S3 part: on the node's disk, and when that is lost refuse (strict) or"
        " go back (rewind); or in the store (shared)",
        "give strict, rewind or shared",
        default="strict",
    )
    node_dead_after_s: float = seconds(
        "Seconds of silence after which a node's tails are lost, for TUS_TAIL_POLICY=rewind",
        default=300.0,
    )
    buffer_bytes: ByteSize = setting(
        "Memory for the bodies of all requests of a process, in bytes or as 128 MiB",
        "give a size of at least 4 MiB",
        default=ByteSize(128 * MIB),
        ge=4 * MIB,
    )
    durability: Annotated[Literal["full", "relaxed"], WORD] = setting(
        "full: acknowledged bytes survive a power cut; relaxed: a crash of the server only",
        "give full or relaxed",
        default="full",
    )
    file_threads: int = count(
        "Threads for writing, reading and fsync of files", default=16, most=256
    )
    log_format: Annotated[Literal["auto", "console", "json"], WORD] = setting(
        "Form of the log lines on stderr; auto: console on a terminal, else json",
        "give auto, console or json",
        default="auto",
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], WORD] = setting(
        "Least severe log lines to write",
        "give debug, info, warning or error",
        default="info",
    )
