"""Run the sink; GET /__counts tells what it was asked for, and the relay's round trips."""

from __future__ import annotations

import argparse
import json

from bench.sink.objects import Objects, render
from bench.sink.relay import Relay
from bench.sink.requests import Request
from bench.sink.server import Server

COUNTS_PATH = "/__counts"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sink")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--relay", type=int, nargs=2, metavar=("PORT", "POSTGRES_PORT"))
    given = parser.parse_args()
    objects = Objects()
    relay = Relay(*given.relay) if given.relay else None

    def answer(request: Request) -> bytes:
        if request.path != COUNTS_PATH:
            return objects.answer(request)
        round_trips = None if relay is None else relay.round_trips
        return render(200, json.dumps({"s3": objects.requests, "round_trips": round_trips}))

    Server(given.port, answer).run()


if __name__ == "__main__":
    main()
