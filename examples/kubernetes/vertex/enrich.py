"""The function of the example: adds the length of each JSON line to it."""

import json

from tidegate.udf import worker

w = worker()


@w.batch_map
def enrich(records, ctx):
    return [json.dumps({**json.loads(bytes(r.value)), "bytes": len(r.value)}).encode() for r in records]


w.run()
