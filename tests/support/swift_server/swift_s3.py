#!/usr/bin/env python3
"""Run OpenStack Swift with its S3 API on loopback: no root, no /etc/swift, no memcached.

    python3 -m venv .swift && .swift/bin/pip install swift==2.38.3
    .swift/bin/python swift_s3.py [--port 8080] [--faults]

Runs in the foreground. The first line on stdout is JSON and means "ready":

    {"endpoint": "http://127.0.0.1:8080", "access_key": "test:tester", "secret_key": "testing",
     "region": "us-east-1", "dir": "/dev/shm/swift-x", "faults": null, "pids": {"account": 11, ...}}

SIGTERM or SIGINT stops all four servers; they also die with the launcher, however it ends.
"""

import argparse
import contextlib
import ctypes
import json
import logging
import os
import pwd
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path

BACKENDS = ("account", "container", "object")
START_TIMEOUT = 30.0  # seconds
MIN_FREE = 1 << 30  # bytes; /dev/shm of a container often has 64 MiB
PR_SET_PDEATHSIG = 1  # linux/prctl.h

SWIFT_CONF = """\
[swift-hash]
swift_hash_path_prefix = test
swift_hash_path_suffix = test
[storage-policy:0]
name = one
default = yes
[swift-constraints]
# S3 allows 2 KB of user metadata in all; Swift's own limit is 256 bytes a value.
max_meta_value_length = 2048
"""

DEFAULT_SECTION = """\
[DEFAULT]
user = {user}
swift_dir = {dir}
devices = {dir}/devices
bind_ip = 127.0.0.1
bind_port = {port}
bind_timeout = 5
workers = 0
mount_check = false
disable_fallocate = true
eventlet_debug = false
log_level = WARNING
log_name = {kind}
log_custom_handlers = swift_s3.log_to_file
"""

BACKEND_CONF = """\
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
recon_cache_path = {dir}/recon
disk_chunk_size = 1048576
network_chunk_size = 1048576
"""

PROXY_CONF = """\
[pipeline:main]
pipeline = {pipeline}
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
client_chunk_size = 1048576
object_chunk_size = 1048576
[filter:faults]
paste.filter_factory = swift_faults:filter_factory
rules = {dir}/faults.json
[filter:tempauth]
use = egg:swift#tempauth
user_{account}_{user} = {secret} .admin
[filter:s3api]
use = egg:swift#s3api
location = {region}
s3_acl = false
auth_pipeline_check = true
check_bucket_owner = false
min_segment_size = {min_part}
max_upload_part_num = 10000
max_parts_listing = 1000
[filter:slo]
use = egg:swift#slo
max_manifest_segments = 10000
max_manifest_size = 8388608
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true
"""
PIPELINE = (
    "catch_errors gatekeeper healthcheck listing_formats bulk s3api tempauth copy "
    "slo dlo versioned_writes symlink proxy-server"
)
PLAIN_FILTERS = [
    "catch_errors",
    "gatekeeper",
    "healthcheck",
    "listing_formats",
    "bulk",
    "copy",
    "dlo",
    "symlink",
]


def log_to_file(conf, name, log_to_console, log_route, fmt, logger, adapted_logger):
    """Swift logs to syslog alone and closes stderr; this handler writes <dir>/<server>.log."""
    if any(isinstance(handler, logging.FileHandler) for handler in logger.handlers):
        return  # Swift asks again for each filter
    handler = logging.FileHandler(f"{conf['swift_dir']}/{conf['log_name']}.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends, even by SIGKILL."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call
        os._exit(1)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def scratch_dir() -> Path:
    """A new directory on tmpfs if that is large and keeps user xattrs (Linux 6.6), else on disk."""
    for root in ("/dev/shm", tempfile.gettempdir()):
        with contextlib.suppress(OSError):
            if shutil.disk_usage(root).free < MIN_FREE:
                continue
            path = tempfile.mkdtemp(prefix="swift-", dir=root)
            try:
                os.setxattr(path, "user.probe", b"1")
                return Path(path)
            except OSError:
                os.rmdir(path)
    raise SystemExit("no scratch directory with 1 GiB free and user xattrs; name one with --dir")


def write_conf(root: Path, ports: dict[str, int], args: argparse.Namespace) -> None:
    os_user = pwd.getpwuid(os.getuid()).pw_name
    account, user = args.access.split(":")
    (root / "devices" / "d1").mkdir(parents=True, exist_ok=True)
    (root / "recon").mkdir(exist_ok=True)
    (root / "swift.conf").write_text(SWIFT_CONF)
    for kind in BACKENDS:
        head = DEFAULT_SECTION.format(kind=kind, user=os_user, dir=root, port=ports[kind])
        (root / f"{kind}.conf").write_text(head + BACKEND_CONF.format(kind=kind, dir=root))
    proxy = PROXY_CONF.format(
        dir=root,
        account=account,
        user=user,
        secret=args.secret,
        region=args.region,
        min_part=args.min_part,
        pipeline=f"faults {PIPELINE}" if args.faults else PIPELINE,
    )
    head = DEFAULT_SECTION.format(kind="proxy", user=os_user, dir=root, port=ports["proxy"])
    plain = "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in PLAIN_FILTERS)
    (root / "proxy.conf").write_text(head + proxy + plain)


def write_rings(root: Path, ports: dict[str, int]) -> None:
    from swift.common import storage_policy, utils
    from swift.common.ring import RingBuilder

    utils.SWIFT_CONF_FILE = str(root / "swift.conf")  # instead of /etc/swift/swift.conf
    utils.validate_hash_conf()
    storage_policy.reload_storage_policies()
    for kind in BACKENDS:
        builder = RingBuilder(part_power=4, replicas=1, min_part_hours=1)
        address = {"ip": "127.0.0.1", "port": ports[kind]}
        replication = {f"replication_{key}": value for key, value in address.items()}
        builder.add_dev(
            {
                "id": 0,
                "region": 1,
                "zone": 1,
                "device": "d1",
                "weight": 1,
                "meta": "",
                **address,
                **replication,
            }
        )
        builder.rebalance()
        builder.get_ring().save(str(root / f"{kind}.ring.gz"))


def spawn(kind: str, root: Path) -> int:
    """Fork one Swift server; its output goes to <dir>/<kind>.log."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        die_with_parent(parent)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        log = os.open(root / f"{kind}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        from swift.common.wsgi import run_wsgi

        run_wsgi(str(root / f"{kind}.conf"), f"{kind}-server")
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)  # never back into the launcher's code


def wait_for_port(port: int, deadline: float, root: Path) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline or os.waitpid(-1, os.WNOHANG)[0]:
                logs = "".join(log.read_text() for log in root.glob("*.log"))
                raise SystemExit(f"a Swift server did not start\n{logs}") from None
            time.sleep(0.02)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--dir",
        type=Path,
        help="keep state here; without it a scratch directory is used and removed",
    )
    parser.add_argument("--port", type=int, default=0, help="S3 port (default: a free one)")
    parser.add_argument("--access", default="test:tester", help="access key, ACCOUNT:USER")
    parser.add_argument("--secret", default="testing")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument(
        "--min-part",
        type=int,
        default=5 << 20,
        help="smallest part but the last, bytes (default 5 MiB)",
    )
    parser.add_argument(
        "--faults", action="store_true", help="insert swift_faults.py; rules in <dir>/faults.json"
    )
    parser.add_argument(
        "--die-with-parent",
        action="store_true",
        help="end when the process that started this one ends",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.die_with_parent:
        die_with_parent(os.getppid())
    # Installed before the first fork: a stop during start-up must clean up as well.
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, lambda *_: sys.exit(0))
    sys.path.insert(
        0, str(Path(__file__).resolve().parent)
    )  # swift_faults and log_to_file; the servers chdir to /
    root = (args.dir or scratch_dir()).resolve()
    root.mkdir(parents=True, exist_ok=True)
    ports = {kind: free_port() for kind in BACKENDS} | {"proxy": args.port or free_port()}
    pids: dict[str, int] = {}
    try:
        write_conf(root, ports, args)
        write_rings(root, ports)
        deadline = time.monotonic() + START_TIMEOUT
        for kind in (*BACKENDS, "proxy"):
            pids[kind] = spawn(kind, root)
        for port in ports.values():
            wait_for_port(port, deadline, root)
        ready = {
            "endpoint": f"http://127.0.0.1:{ports['proxy']}",
            "access_key": args.access,
            "secret_key": args.secret,
            "region": args.region,
            "dir": str(root),
            "faults": str(root / "faults.json") if args.faults else None,
            "pids": pids,
        }
        print(json.dumps(ready), flush=True)
        while True:
            pid, status = os.wait()  # a server that a test killed stays down; the others go on
            print(f"server {pid} ended with status {status}", file=sys.stderr, flush=True)
    except ChildProcessError:
        pass  # all four are gone
    finally:
        for pid in pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not args.dir:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
