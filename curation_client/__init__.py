"""A client of the curation service: the calls, and a watch that outlives lost connections.

`curation_client.aio` is for asyncio, `curation_client.sync` for threads; both follow the one policy in `watch`.
"""
