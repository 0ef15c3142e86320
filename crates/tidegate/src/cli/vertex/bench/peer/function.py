"""The function that is measured: a copy with one bit changed, of a list of records or of a table."""

import sys

from tidegate.udf import worker

form, size = sys.argv[1], int(sys.argv[2])
w = worker()

if form == "list":

    @w.batch_map
    def flip(records, ctx):
        return [bytes((record.value[0] ^ 1,)) + record.value[1:] for record in records]

else:

    @w.batch_table([("first", "u1"), ("rest", f"V{size - 1}")])
    def flip(table, ctx):
        values = table.values.copy()
        values["first"] ^= 1
        return values


w.run()
