# Python's aiohttp.
import asyncio

import aiohttp

from plan import plan


async def parts(one):
    for part in one.parts():
        yield part


async def main():
    todo = plan()
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=20)) as session:
        for one in todo:
            try:
                body = parts(one) if one.framing == "chunked" else one.body
                headers = {"x-request": one.id}
                async with session.request(
                    one.method, one.url, headers=headers, data=body, expect100=one.expect
                ) as answer:
                    one.report(one.fault(answer.status, answer.headers, await answer.read()))
            except Exception as error:
                one.report(repr(error))
        print(f"done {len(todo)}")


# Its connections are closed a turn of the loop later.
asyncio.run(main())
