# What the clients in Python have in common: the plan, the bodies, and what an answer must be.
import hashlib
import sys
from functools import lru_cache


@lru_cache(maxsize=None)
def pattern(size):
    return bytes(97 + i % 23 for i in range(size))


@lru_cache(maxsize=None)
def hash_of(size):
    return hashlib.sha256(pattern(size)).hexdigest()


class Request:
    def __init__(self, base, line):
        self.id, self.framing, expect, body, answer, target = line.split(" ")
        self.expect = expect == "expect"
        self.body_bytes, self.answer_bytes = int(body), int(answer)
        self.url = base + target
        self.method = "GET" if self.framing == "none" else "POST"

    @property
    def body(self):
        return None if self.framing == "none" else pattern(self.body_bytes)

    def parts(self):
        for at in range(0, self.body_bytes, 40_000):
            yield pattern(self.body_bytes)[at : at + 40_000]

    def fault(self, status, headers, body):
        if status != 200:
            return f"status {status}"
        if headers.get("x-request") != self.id:
            return f"the answer to {headers.get('x-request')}"
        if headers.get("x-received") != hash_of(self.body_bytes):
            return "another body was received"
        return "" if body == pattern(self.answer_bytes) else f"another answer, of {len(body)} bytes"

    def report(self, fault):
        if fault:
            print(f"{self.id}: {fault}", flush=True)


def plan():
    with open(sys.argv[2], encoding="ascii") as lines:
        return [Request(sys.argv[1], line) for line in lines.read().splitlines()]
