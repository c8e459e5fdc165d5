# Python's httpx. It does not wait for 100 Continue, and takes one.
import socket

import httpx

from plan import plan

connect = socket.create_connection


def connect_without_delay(*arguments, **options):
    # This version writes head and body apart and leaves Nagle's algorithm on: each small body waited 40 ms for the head's ACK.
    connected = connect(*arguments, **options)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


socket.create_connection = connect_without_delay

todo = plan()
with httpx.Client(timeout=20, trust_env=False) as client:
    for one in todo:
        try:
            headers = {"x-request": one.id, **({"Expect": "100-continue"} if one.expect else {})}
            body = one.parts() if one.framing == "chunked" else one.body
            answer = client.request(one.method, one.url, headers=headers, content=body)
            one.report(one.fault(answer.status_code, answer.headers, answer.content))
        except Exception as error:
            one.report(repr(error))
print(f"done {len(todo)}")
