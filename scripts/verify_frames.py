#!/usr/bin/env python3
"""Checks what subscribers received against a recording.

usage: verify_frames.py RECORDING.npy RECEIVED.jsonl...

A producer publishes the recording's frames in turn, starting with the first one in each epoch, so frame `seq` of any
epoch must be frame `seq modulo length` of the recording, byte for byte. Uses nothing but the standard library.
"""

import ast
import json
import sys
import zlib


def frames(path):
    """Shape and CRC-32 of each frame along the first axis of a C-order .npy file."""
    with open(path, "rb") as file:
        data = file.read()
    assert data[:8] == b"\x93NUMPY\x01\x00", "not an .npy file of version 1.0"
    start = 10 + int.from_bytes(data[8:10], "little")
    header = ast.literal_eval(data[10:start].decode("ascii"))
    assert not header["fortran_order"], "expected C order"
    count, *shape = header["shape"]
    size = (len(data) - start) // count
    return shape, [zlib.crc32(data[start + i * size : start + (i + 1) * size]) for i in range(count)]


def main(recording, *received):
    shape, expected = frames(recording)
    for path in received:
        checked, last, summary = 0, {}, None
        with open(path) as file:
            for line in map(json.loads, file):
                if line.get("summary"):
                    summary = line
                    continue
                seq, epoch = line["seq"], line["epoch"]
                if line["shape"] != shape or line["crc32"] != expected[seq % len(expected)]:
                    sys.exit(f"{path}: frame {seq} of epoch {epoch} differs from the recording")
                if seq <= last.get(epoch, -1) or epoch < max(last, default=epoch):
                    sys.exit(f"{path}: frame {seq} of epoch {epoch} is out of order")
                last[epoch] = seq
                checked += 1
        if summary is None or summary["frames"] != checked or checked == 0:
            sys.exit(f"{path}: summary {summary} does not fit {checked} frames")
        drops = ", ".join(f"{reason} {summary['drops_' + reason]}" for reason in ("gap", "late", "invalid"))
        print(f"  {path.rsplit('/', 1)[-1]}: {checked} frames of {len(last)} epochs identical; dropped: {drops}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
