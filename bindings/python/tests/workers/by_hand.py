"""A worker in plain Python, out of the sheet alone: every byte of F, D, U and of the frames is checked against it (CT-01).

It writes each record back in capitals. Nothing of the package is used. Python cannot order its stores; on x86-64, whose stores
are not reordered, this will do for a test.
"""

import array
import json
import mmap
import os
import pathlib
import socket
import struct
import time

ROLE = os.environ["TIDEGATE_TEST_FUNCTION"]
# What workers say that the runtime cannot take.
STRANGERS = {
    "version": {"proto": [7, 9]},
    "schema": {"schema_in": [5]},
    "kind": {"kind": "window"},
    "feature": {"features": ["telepathy"]},
    # As in another time namespace.
    "clock": {"boottime": 1},
}

TABLE = []
for number in range(256):
    for _ in range(8):
        number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
    TABLE.append(number)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def expect(name, found, expected):
    if found != expected:
        raise SystemExit(f"{name} is {found!r}, the sheet says {expected!r}")


def attach():
    control = socket.socket(fileno=os.dup(0))
    hello = {
        "type": "hello",
        "proto": [1, 1],
        "sdk": "by hand",
        "sdk_version": "0",
        "language": "python",
        "function": "by hand",
        "kind": "batch_map",
        "schema_in": [0],
        "schema_out": 0,
        "encodings": ["records"],
        "features": [],
        "id_scheme": 1,
        "boottime": time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        "pid": os.getpid(),
    }
    hello.update(STRANGERS.get(ROLE, {}))
    control.send(json.dumps(hello).encode())
    message, ancillary, _, _ = control.recvmsg(65536, socket.CMSG_SPACE(12), socket.MSG_CMSG_CLOEXEC)
    welcome = json.loads(message)
    if ROLE in STRANGERS:
        expect("answer", welcome["type"], "reject")
        pathlib.Path(os.environ["TIDEGATE_TEST_PLACE"], "told").write_text(welcome["code"])
        raise SystemExit(welcome["message"])
    expect("welcome", welcome["type"], "welcome")
    expect("encoding", welcome["encoding"], "records")
    (_, _, data), = ancillary
    down, up, fence = array.array("i", data)
    return control, welcome, down, up, fence


def check_fence(fence):
    size = os.fstat(fence).st_size
    f = mmap.mmap(fence, size, mmap.MAP_SHARED, mmap.PROT_READ)
    magic, version, header, segment, instance, slots, stride, crc, ready = struct.unpack_from("<8sIIQQIIII", f)
    expect("F", (magic, version, header, segment, stride, ready), (b"TGVXSEGF", 1, 4096, size, 64, 1))
    expect("F size", size, -(-(4096 + 64 * slots) // 4096) * 4096)
    expect("F crc", crc, crc32c(f[:0x28]))
    return f, instance


def check_down(down, instance):
    size = os.fstat(down).st_size
    d = mmap.mmap(down, size, mmap.MAP_SHARED, mmap.PROT_READ)
    fields = struct.unpack_from("<8sIIQQQIIQQQIIQQIIQIIII", d)
    magic, version, header, segment, ring_at, capacity, align, max_frame, session, runtime = fields[:10]
    pipeline, _, worker, schema_in, schema_out, kind, features, _, in_flight, crc, ready, zero = fields[10:]
    expect("D", (magic, version, header, segment, ring_at, align), (b"TGVXSEGD", 1, 4096, size, 4096, 128))
    expect("D ring", (capacity, max_frame % 128, max_frame <= capacity // 2), (size - 4096, 0, True))
    expect("D of", (runtime, pipeline, worker, schema_in, schema_out), (instance, 0xAA, 0, 0, 0))
    expect("D kind", (kind, features, ready, zero), (2, 0, 1, 0))
    expect("D crc", crc, crc32c(d[:0x74]))
    if session == 0 or in_flight == 0:
        raise SystemExit("D has no session or no credit")
    return d, capacity, max_frame, session, in_flight


def check_up(up, capacity, max_frame, session):
    size = os.fstat(up).st_size
    u = mmap.mmap(up, size)
    expect("U", u[:0x38], struct.pack("<8sIIQQQIIQ", b"TGVXSEGU", 1, 4096, size, 4096, capacity, 128, max_frame, session))
    expect("U behind its header", u[0x38:0x1000].count(0), 0x1000 - 0x38)
    return u


HEADER = "<4sHHIIQQQQIIQQIHHqQQIHHIII"


def check_frame(header, at, session):
    fields = struct.unpack_from(HEADER, header)
    magic, version, header_len, flags, payload_len, generation, epoch, batch, schema = fields[:9]
    partition, count, first, last, frame_len, kind, encoding, watermark, of, ring_pos = fields[9:19]
    status, attempt, slot, payload_crc, done, fragment = fields[19:]
    expect("frame", (magic, version, header_len, of, ring_pos), (b"TGVB", 1, 128, session, at))
    # Published, with a checksum of the payload, and nothing else on the first try.
    expect("flags", flags, 0b101)
    expect("frame of", (partition, slot, schema, kind, encoding), (0, 0, 0, 2, 1))
    expect("frame_len", frame_len, -(-(128 + payload_len) // 128) * 128)
    expect("unused", (watermark, status, attempt, done, fragment), (-(2**63), 0, 0, 0, 0))
    crc, = struct.unpack_from("<I", header, 0x7C)
    expect("header crc", crc, crc32c(header[:8] + struct.pack("<I", flags & ~1) + header[12:0x7C]))
    if generation == 0 or epoch == 0 or batch == 0 or last < first or count == 0:
        raise SystemExit("a frame with a zero")
    return fields


def answer(payload, count):
    """The records of a payload, which are checked, in capitals."""
    at, made = 0, b""
    for ordinal in range(count):
        rec_len, kind, flags, key_len, value_len, headers_len, time_ms, index, _ = struct.unpack_from("<IBBHIIqII", payload, at)
        expect("record", (kind, flags, key_len, headers_len, time_ms, index), (1, 0, 0, 0, 0, ordinal))
        expect("rec_len", rec_len, 32 + -(-value_len // 8) * 8)
        value = payload[at + 32 : at + 32 + value_len]
        expect("padding", payload[at + 32 + value_len : at + rec_len].strip(b"\0"), b"")
        made += struct.pack("<IBBHIIqII", rec_len, 1, 0, 0, value_len, 0, 0, index, 0)
        made += value.upper().ljust(rec_len - 32, b"\0")
        at += rec_len
    expect("payload_len", at, len(payload))
    return made


def main():
    control, welcome, down, up, fence = attach()
    f, instance = check_fence(fence)
    d, capacity, max_frame, session, in_flight = check_down(down, instance)
    u = check_up(up, capacity, max_frame, session)
    down_words, up_words = memoryview(d).cast("Q"), memoryview(u).cast("Q")
    consumed = batches = head = answered = 0

    def grant():
        up_words[0x200 // 8], up_words[0x208 // 8] = consumed, batches
        up_words[0x210 // 8], up_words[0x218 // 8] = consumed + capacity, batches + in_flight

    grant()
    struct.pack_into("<I", u, 0x78, 1)
    control.send(b'{"type":"ready","sealed":true}')
    # 4 is CLOSED.
    while down_words[0x280 // 8] != 4:
        if down_words[0x100 // 8] == consumed:
            time.sleep(0.001)
            continue
        at = 4096 + consumed % capacity
        # A filler at the end of the ring.
        if struct.unpack_from("<H", d, at + 0x4C) == (1,):
            consumed += struct.unpack_from("<I", d, at + 0x48)[0]
            continue
        header = d[at : at + 128]
        fields = check_frame(header, consumed, session)
        generation, slot_word = fields[5], struct.unpack_from("<Q", f, 0x1000)[0]
        expect("fence word", slot_word, generation)
        payload = d[at + 128 : at + 128 + fields[4]]
        expect("payload crc", fields[22], crc32c(payload))
        consumed, batches = consumed + fields[13], batches + 1
        grant()
        made = answer(payload, fields[10])
        frame_len = -(-(128 + len(made)) // 128) * 128
        to_end = capacity - head % capacity
        if to_end < frame_len:
            put(u, head, capacity, fields, session, b"", 1, to_end)
            head += to_end
        put(u, head, capacity, fields, session, made, 3, frame_len)
        head, answered = head + frame_len, answered + 1
        up_words[0x100 // 8], up_words[0x108 // 8] = head, answered


def put(u, head, capacity, request, session, payload, kind, frame_len):
    """Writes a frame or a filler; its flags last."""
    fields = list(request)
    fields[3], fields[4] = (0 if kind == 1 else 4), len(payload)
    fields[13], fields[14], fields[17], fields[18] = frame_len, kind, session, head
    fields[22], fields[23] = crc32c(payload), (fields[10] if kind == 3 else 0)
    header = struct.pack(HEADER, *fields)
    at = 4096 + head % capacity
    u[at : at + 128] = header + struct.pack("<I", crc32c(header))
    u[at + 128 : at + 128 + len(payload)] = payload
    struct.pack_into("<I", u, at + 8, fields[3] | 1)


main()
