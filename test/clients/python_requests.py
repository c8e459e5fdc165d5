# Python's requests. It does not wait for 100 Continue, and takes one.
import requests

from plan import plan

todo = plan()
with requests.Session() as session:
    session.trust_env = False
    for one in todo:
        try:
            headers = {"x-request": one.id, **({"Expect": "100-continue"} if one.expect else {})}
            body = one.parts() if one.framing == "chunked" else one.body
            answer = session.request(one.method, one.url, headers=headers, data=body, timeout=20)
            one.report(one.fault(answer.status_code, answer.headers, answer.content))
        except Exception as error:
            one.report(repr(error))
print(f"done {len(todo)}")
