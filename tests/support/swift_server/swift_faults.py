"""A filter for the head of Swift's proxy pipeline that makes S3 requests fail on order.

`swift_s3.py --faults` inserts it. Tests write a JSON list of rules to the file named in the
launcher's first line; the filter reads it again when it changes. The first rule that matches a
request applies:

    {"method": "PUT", "query": "partNumber=2", "status": 503, "code": "SlowDown", "times": 2}

    method, path, query   which requests: that method, and text in the path and the query
    times                 how many requests it hits, 1 if left out
    delay                 seconds to wait
    status, code          answer with this S3 error; without a status the request takes its course
    after                 true: let Swift do the work first, so that only the answer is late or
                          wrong. Otherwise a delayed PUT has not even got its "100 Continue"
    truncate              send this many bytes of Swift's answer, then close; Content-Length stays

Each hit is appended as one JSON line to <rules file>.hits, so that a test can assert that its
fault took place.
"""

import json
import os

import eventlet
from swift.common.swob import Request, Response

ERROR_BODY = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    "<Error><Code>{code}</Code><Message>injected</Message><RequestId>injected</RequestId></Error>"
)


class Faults:
    def __init__(self, app, rules_path: str) -> None:
        self.app = app
        self.rules_path = rules_path
        self.mtime_ns: int | None = None
        self.rules: list[dict] = []

    def __call__(self, env, start_response):
        rule = self.take_rule(env)
        if rule is None:
            return self.app(env, start_response)
        answer = self.app
        if rule.get("after"):
            answer = Request(env).get_response(self.app)
        eventlet.sleep(rule.get("delay", 0))
        if "status" in rule:
            body = ERROR_BODY.format(code=rule.get("code", "InternalError")).encode()
            answer = Response(
                request=Request(env),
                status=rule["status"],
                body=body,
                content_type="application/xml",
            )
        if "truncate" not in rule:
            return answer(env, start_response)
        env["eventlet.minimum_write_chunk_size"] = (
            0  # or the bytes before the end would wait in a buffer
        )
        return self.truncated(answer(env, start_response), rule["truncate"])

    def take_rule(self, env) -> dict | None:
        self.reload()
        for rule in self.rules:
            if rule.get("times", 1) > 0 and self.matches(rule, env):
                rule["times"] = rule.get("times", 1) - 1
                self.record(rule, env)
                return rule
        return None

    def reload(self) -> None:
        try:
            mtime_ns = os.stat(self.rules_path).st_mtime_ns
        except FileNotFoundError:
            self.mtime_ns, self.rules = None, []
            return
        if mtime_ns != self.mtime_ns:
            with open(self.rules_path) as file:
                self.rules = json.load(file)
            self.mtime_ns = mtime_ns

    @staticmethod
    def matches(rule: dict, env) -> bool:
        return (
            rule.get("method", env["REQUEST_METHOD"]) == env["REQUEST_METHOD"]
            and rule.get("path", "") in env["PATH_INFO"]
            and rule.get("query", "") in env.get("QUERY_STRING", "")
        )

    def record(self, rule: dict, env) -> None:
        hit = {
            "method": env["REQUEST_METHOD"],
            "path": env["PATH_INFO"],
            "query": env.get("QUERY_STRING", ""),
            "rule": rule,
        }
        with open(f"{self.rules_path}.hits", "a") as file:
            file.write(json.dumps(hit) + "\n")

    @staticmethod
    def truncated(chunks, limit: int):
        for chunk in chunks:
            yield chunk[:limit]
            limit -= len(chunk)
            if limit <= 0:
                raise ConnectionAbortedError("injected: the answer ends here")


def filter_factory(global_conf, **conf):
    return lambda app: Faults(app, conf["rules"])
