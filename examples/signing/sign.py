#!/usr/bin/env python3
# Signs a request for Tidegate and sends it. Python 3.8 or newer, nothing to install.
#   X_SOURCE=test X_SECRET=demo-secret-of-test python3 sign.py [--headers] METHOD URL [FILE]
# FILE is the body. --headers prints the three headers instead of sending. X_TIME sets the time, for tests.
import hashlib
import hmac
import os
import sys
import time
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import urlsplit


def signed_headers(source, secret, method, target, body, now=None):
    """`target` is path and query as they are sent; `body` the exact bytes."""
    now = str(now or int(time.time()))
    body_hash = hashlib.sha256(body).hexdigest()
    text = "\n".join([source, now, method, target, body_hash])
    mac = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    return {"x-source": source, "x-time": now, "x-m": mac}


def main(words):
    headers_only = words[:1] == ["--headers"]
    if headers_only:
        words = words[1:]
    if len(words) not in (2, 3):
        sys.exit("usage: X_SOURCE=... X_SECRET=... python3 sign.py [--headers] METHOD URL [FILE]")
    method, address = words[:2]
    url = urlsplit(address)
    target = (url.path or "/") + ("?" + url.query if url.query else "")
    body = b""
    if len(words) == 3:
        with open(words[2], "rb") as file:
            body = file.read()
    headers = signed_headers(
        os.environ["X_SOURCE"], os.environ["X_SECRET"], method, target, body, os.environ.get("X_TIME")
    )
    if headers_only:
        for name, value in headers.items():
            print(f"{name}: {value}")
        return
    connection = (HTTPSConnection if url.scheme == "https" else HTTPConnection)(url.netloc)
    connection.request(method, target, body=body or None, headers=headers)
    answer = connection.getresponse()
    print(answer.status, answer.getheader("x-rid"), flush=True)
    sys.stdout.buffer.write(answer.read())


main(sys.argv[1:])
