"""A libzmq that does what a test tells it: peer.py DIRECTORY-OF-THE-LIBRARY.

Reads commands from standard input, one a line, and answers each with a line: `ok` and results, or `error` and a text. Words
are separated by spaces; a message is the hexadecimal of its parts, `-` for an empty one. Speaks to the library's C API, so
that it runs with every release. Ends at the end of its input.

While it waits it goes on calling into its sockets, because a libzmq socket does some of its work in its owner's calls only.
"""

import ctypes
import os
import select
import struct
import sys
import threading
import time
from pathlib import Path

TYPES = {"PAIR": 0, "PUB": 1, "SUB": 2, "REQ": 3, "REP": 4, "DEALER": 5, "ROUTER": 6, "PULL": 7, "PUSH": 8,
         "XPUB": 9, "XSUB": 10}
# Name, number, and how the value is written: a number of 4 or 8 octets, or octets.
OPTIONS = {
    "routing_id": (5, "b"), "subscribe": (6, "b"), "unsubscribe": (7, "b"), "sndbuf": (11, "i"), "rcvbuf": (12, "i"),
    "linger": (17, "i"), "reconnect_ivl": (18, "i"), "backlog": (19, "i"), "sndhwm": (23, "i"), "rcvhwm": (24, "i"),
    "rcvtimeo": (27, "i"), "sndtimeo": (28, "i"), "router_mandatory": (33, "i"), "ipv6": (42, "i"),
    "plain_server": (44, "i"), "plain_username": (45, "b"), "plain_password": (46, "b"),
    "curve_server": (47, "i"), "curve_publickey": (48, "b"), "curve_secretkey": (49, "b"), "curve_serverkey": (50, "b"),
    "probe_router": (51, "i"), "req_correlate": (52, "i"), "req_relaxed": (53, "i"), "zap_domain": (55, "b"),
    "router_handover": (56, "i"), "connect_routing_id": (61, "b"), "handshake_ivl": (66, "i"),
    "heartbeat_ivl": (75, "i"), "heartbeat_ttl": (76, "i"), "heartbeat_timeout": (77, "i"), "xpub_verbose": (40, "i"),
}
EVENTS, LAST_ENDPOINT = 15, 32
DONTWAIT, SNDMORE = 1, 2
EAGAIN, EINTR, EHOSTUNREACH = 11, 4, 113
# Longest wait for anything, in seconds.
PATIENCE = 20
# What libzmq needs its owner's calls for is done this soon, in seconds.
TICK = 0.002

# What the parts of a series are cut from. The Rust side has the same.
BLOCK = bytes((j * j * 7 + j * 3 + (j >> 3)) & 255 for j in range(4099))
PATTERN = BLOCK * 260
SMALL = (0, 1, 255, 256, 1, 255, 0, 256)


def message_of_series(index):
    parts = []
    for part in range(1 + index % 5):
        r = (index * 5 + part * 3) % 64
        if part == 0 and index % 500 == 3:
            size = 1 << 20
        elif r == 0:
            size = 65536
        elif r == 1:
            size = 8191
        elif r == 2:
            size = 8192
        else:
            size = SMALL[r % 8]
        start = (index * 31 + part * 7) % 4099
        parts.append(PATTERN[start:start + size])
    return parts


class Failure(Exception):
    pass


def load(directory):
    # The library of a wheel does not always find the libsodium beside it by itself.
    for sodium in directory.glob("libsodium*"):
        ctypes.CDLL(str(sodium), ctypes.RTLD_GLOBAL)
    c = ctypes.CDLL(str(next(directory.glob("libzmq*"))), use_errno=True)
    pointer, size, text, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_int
    for name, result, arguments in (
        ("zmq_ctx_new", pointer, []), ("zmq_ctx_term", number, [pointer]), ("zmq_ctx_set", number, [pointer, number, number]),
        ("zmq_socket", pointer, [pointer, number]), ("zmq_close", number, [pointer]),
        ("zmq_setsockopt", number, [pointer, number, text, size]),
        ("zmq_getsockopt", number, [pointer, number, pointer, ctypes.POINTER(size)]),
        ("zmq_bind", number, [pointer, text]), ("zmq_connect", number, [pointer, text]),
        ("zmq_unbind", number, [pointer, text]), ("zmq_disconnect", number, [pointer, text]),
        ("zmq_send", number, [pointer, text, size, number]),
        ("zmq_msg_init", number, [pointer]), ("zmq_msg_close", number, [pointer]),
        ("zmq_msg_recv", number, [pointer, pointer, number]), ("zmq_msg_data", pointer, [pointer]),
        ("zmq_msg_size", size, [pointer]), ("zmq_msg_more", number, [pointer]),
        ("zmq_socket_monitor", number, [pointer, text, number]), ("zmq_proxy", number, [pointer, pointer, pointer]),
        ("zmq_errno", number, []), ("zmq_strerror", text, [number]), ("zmq_version", None, [pointer, pointer, pointer]),
    ):
        function = getattr(c, name)
        function.restype, function.argtypes = result, arguments
    return c


class Socket:
    def __init__(self, c, context, kind):
        self.c = c
        self.handle = c.zmq_socket(context, TYPES[kind] if isinstance(kind, str) else kind)
        if not self.handle:
            self.fail("socket")
        self.space = (ctypes.c_uint64 * 8)()
        self.pointer = ctypes.addressof(self.space)
        self.monitor = None

    def fail(self, what):
        raise Failure(f"{what}: {self.c.zmq_strerror(self.c.zmq_errno()).decode()}")

    def check(self, result, what):
        if result < 0:
            self.fail(what)

    def set(self, name, value):
        number, form = OPTIONS[name]
        value = value if form == "b" else struct.pack(form, value)
        self.check(self.c.zmq_setsockopt(self.handle, number, value, len(value)), name)

    def touch(self):
        """A call that lets the socket do what is due."""
        value, size = ctypes.c_int(), ctypes.c_size_t(4)
        self.c.zmq_getsockopt(self.handle, EVENTS, ctypes.byref(value), ctypes.byref(size))

    def last_endpoint(self):
        text, size = ctypes.create_string_buffer(300), ctypes.c_size_t(300)
        self.check(self.c.zmq_getsockopt(self.handle, LAST_ENDPOINT, text, ctypes.byref(size)), "last endpoint")
        return text.value.decode()

    def watch(self, context):
        name = f"inproc://monitor-{id(self)}".encode()
        self.check(self.c.zmq_socket_monitor(self.handle, name, 0xFFFF), "monitor")
        self.monitor = Socket(self.c, context, "PAIR")
        self.monitor.set("linger", 0)
        self.check(self.c.zmq_connect(self.monitor.handle, name), "connect to monitor")

    def send(self, parts, flags=0):
        """False when that is not possible at once, or in time."""
        last = len(parts) - 1
        for index, part in enumerate(parts):
            while self.c.zmq_send(self.handle, part, len(part), flags | (SNDMORE if index < last else 0)) < 0:
                error = self.c.zmq_errno()
                if error == EAGAIN and index == 0:
                    return False
                if error != EINTR:
                    self.fail("send")
        return True

    def receive(self, flags=0):
        """None when there is nothing at once, or in time."""
        c, parts, message = self.c, [], self.pointer
        while True:
            c.zmq_msg_init(message)
            if c.zmq_msg_recv(message, self.handle, flags) < 0:
                error = c.zmq_errno()
                c.zmq_msg_close(message)
                if error == EAGAIN:
                    return None
                if error == EINTR:
                    continue
                self.fail("receive")
            parts.append(ctypes.string_at(c.zmq_msg_data(message), c.zmq_msg_size(message)))
            more = c.zmq_msg_more(message)
            c.zmq_msg_close(message)
            if not more:
                return parts

    def close(self):
        if self.monitor:
            self.c.zmq_socket_monitor(self.handle, None, 0)
            self.monitor.close()
        if self.handle:
            self.c.zmq_close(self.handle)
            self.handle = None


def words_of(parts):
    return " ".join(part.hex() or "-" for part in parts)


def parts_of(words):
    return [b"" if word == "-" else bytes.fromhex(word) for word in words]


class Peer:
    def __init__(self, c):
        self.c, self.contexts, self.sockets, self.threads = c, {}, {}, {}

    def context(self, name):
        if name not in self.contexts:
            self.contexts[name] = self.c.zmq_ctx_new()
            self.threads[name] = []
        return self.contexts[name]

    def tick(self):
        for _, sock in self.sockets.values():
            sock.touch()

    def until(self, attempt, patience, what):
        """Tries until the attempt gives something."""
        deadline = time.monotonic() + patience
        while True:
            result = attempt()
            if result is not None:
                return result
            if time.monotonic() > deadline:
                raise Failure(f"timed out: {what}")
            self.tick()
            time.sleep(TICK)

    # Commands

    def version(self):
        numbers = [ctypes.c_int() for _ in range(3)]
        self.c.zmq_version(*map(ctypes.byref, numbers))
        return ".".join(str(number.value) for number in numbers)

    def open(self, name, context, kind, *options):
        """open NAME CONTEXT TYPE OPTION=VALUE...: a socket with a monitor; octets are hexadecimal."""
        sock = Socket(self.c, self.context(context), kind)
        for option in ("rcvtimeo=%d" % (PATIENCE * 1000), "sndtimeo=%d" % (PATIENCE * 1000)) + options:
            key, value = option.split("=")
            sock.set(key, bytes.fromhex(value) if OPTIONS[key][1] == "b" else int(value))
        sock.watch(self.context(context))
        self.sockets[name] = (context, sock)

    def set(self, name, option):
        key, value = option.split("=")
        self.sockets[name][1].set(key, bytes.fromhex(value) if OPTIONS[key][1] == "b" else int(value))

    def bind(self, name, endpoint):
        sock = self.sockets[name][1]

        def attempt():
            # The connections of a predecessor may still be about to end.
            return sock if self.c.zmq_bind(sock.handle, endpoint.encode()) == 0 or self.c.zmq_errno() != 98 else None

        self.until(attempt, PATIENCE, f"bind {endpoint}")
        bound = sock.last_endpoint()
        if not bound:
            sock.fail(f"bind {endpoint}")
        return bound

    def connect(self, name, endpoint):
        sock = self.sockets[name][1]
        sock.check(self.c.zmq_connect(sock.handle, endpoint.encode()), f"connect {endpoint}")

    def disconnect(self, name, endpoint):
        sock = self.sockets[name][1]
        sock.check(self.c.zmq_disconnect(sock.handle, endpoint.encode()), f"disconnect {endpoint}")

    def close(self, name):
        self.sockets.pop(name)[1].close()

    def term(self, name):
        """Closes the sockets of a context, sends what is queued, ends the context and its helpers."""
        for key in [key for key, (context, _) in self.sockets.items() if context == name]:
            self.sockets.pop(key)[1].close()
        if name in self.contexts:
            self.c.zmq_ctx_term(self.contexts.pop(name))
            for thread in self.threads.pop(name):
                thread.join()

    def send(self, name, *words):
        if not self.sockets[name][1].send(parts_of(words)):
            raise Failure("nothing could be sent in time")

    def try_send(self, name, *words):
        return "sent" if self.sockets[name][1].send(parts_of(words), DONTWAIT) else "full"

    def recv(self, name, milliseconds=PATIENCE * 1000):
        sock = self.sockets[name][1]
        parts = self.until(lambda: sock.receive(DONTWAIT), int(milliseconds) / 1000, f"{name} receives")
        return words_of(parts)

    def wait(self, name, mask, milliseconds=PATIENCE * 1000):
        """wait NAME MASK [MS]: the next event of the mask, and its value; others are dropped."""
        monitor, mask = self.sockets[name][1].monitor, int(mask)

        def attempt():
            parts = monitor.receive(DONTWAIT)
            while parts is not None:
                event, value = struct.unpack("=HI", parts[0])
                if event & mask:
                    return f"{event} {value}"
                parts = monitor.receive(DONTWAIT)
            return None

        return self.until(attempt, int(milliseconds) / 1000, f"{name} waits for an event of {mask:#x}")

    def quiet(self, name, mask, milliseconds):
        """Fails when an event of the mask comes within that time."""
        try:
            event = self.wait(name, mask, milliseconds)
        except Failure:
            return
        raise Failure(f"event {event}")

    def zap(self, context, status, *credentials):
        """zap CONTEXT STATUS CREDENTIAL...: answers authentication requests with the status, with 400 to others."""
        sock = Socket(self.c, self.context(context), "REP")
        sock.set("linger", 0)
        sock.check(self.c.zmq_bind(sock.handle, b"inproc://zeromq.zap.01"), "zap")
        credentials = parts_of(credentials)

        def run():
            try:
                while True:
                    request = sock.receive()
                    code = status.encode() if request[6:] == credentials else b"400"
                    sock.send([b"1.0", request[1], code, b"", b"user" if code == b"200" else b"", b""])
            except Failure:
                sock.close()

        self.threads[context].append(threading.Thread(target=run))
        self.threads[context][-1].start()

    def proxy(self, context, front, back):
        """Hands both sockets to a proxy, until their context ends."""
        ends = [self.sockets.pop(name)[1] for name in (front, back)]

        def run():
            self.c.zmq_proxy(ends[0].handle, ends[1].handle, None)
            for end in ends:
                end.close()

        self.threads[context].append(threading.Thread(target=run))
        self.threads[context][-1].start()

    def series_send(self, name, count, *prefix):
        sock, prefix = self.sockets[name][1], parts_of(prefix)
        for index in range(int(count)):
            if not sock.send(prefix + message_of_series(index)):
                raise Failure(f"message {index} could not be sent in time")

    def next_of_series(self, sock, index, strip):
        """The next message of at least one part more than `strip`; what has fewer is a greeting of the pattern."""
        while True:
            parts = sock.receive()
            if parts is None:
                raise Failure(f"message {index} of the series did not come in time")
            if len(parts) > strip:
                break
        if parts[strip:] != message_of_series(index):
            raise Failure(f"message {index} has other parts: {[len(part) for part in parts[strip:]]}")
        return parts

    def series_recv(self, name, count, strip):
        sock = self.sockets[name][1]
        for index in range(int(count)):
            self.next_of_series(sock, index, int(strip))

    def echo(self, name, count, strip):
        sock = self.sockets[name][1]
        for index in range(int(count)):
            if not sock.send(self.next_of_series(sock, index, int(strip))):
                raise Failure(f"the answer to message {index} could not be sent in time")

    def ping(self, name, count, window, strip, *prefix):
        """Sends the series and receives it back, so many messages ahead."""
        sock, prefix = self.sockets[name][1], parts_of(prefix)
        count, window, strip = int(count), int(window), int(strip)
        for start in range(0, count, window):
            some = range(start, min(start + window, count))
            for index in some:
                message = prefix + message_of_series(index)

                def attempt():
                    try:
                        return True if sock.send(message) else None
                    except Failure:
                        # A ROUTER that must know its peers does not know this one yet.
                        if self.c.zmq_errno() != EHOSTUNREACH:
                            raise
                        return None

                self.until(attempt, PATIENCE, f"message {index} is sent")
            for index in some:
                self.next_of_series(sock, index, strip)

    def flood(self, name, size, quiet):
        """flood NAME SIZE MS: sends numbered messages until none could be sent for so long; how many."""
        sock, count, padding = self.sockets[name][1], 0, bytes(int(size))
        deadline = time.monotonic() + int(quiet) / 1000
        while time.monotonic() < deadline:
            if sock.send([struct.pack("<I", count) + padding], DONTWAIT):
                count += 1
                deadline = time.monotonic() + int(quiet) / 1000
            else:
                time.sleep(TICK)
        return count

    def drain(self, name, count):
        """Receives so many messages of a flood."""
        for index in range(int(count)):
            parts = self.sockets[name][1].receive()
            if parts is None or struct.unpack("<I", parts[0][:4])[0] != index:
                raise Failure(f"instead of message {index} of the flood: {parts and parts[0][:8]}")

    def large_send(self, name, size):
        if not self.sockets[name][1].send([bytes(int(size) - 3) + b"end"]):
            raise Failure("the large message could not be sent in time")

    def large_recv(self, name):
        part, = self.sockets[name][1].receive() or [b""]
        return f"{len(part)} {part[-3:].hex()}"

    def topics_subscribe(self, name, count):
        for index in range(int(count)):
            self.sockets[name][1].set("subscribe", b"topic %05d" % index)

    def topics_send(self, name, count):
        """One message for each topic, then one of the topic `end`."""
        for topic in [b"topic %05d" % index for index in range(int(count))] + [b"end"]:
            self.sockets[name][1].send([topic])

    def topics_recv(self, name, count):
        for index in range(int(count)):
            parts = self.sockets[name][1].receive()
            if parts != [b"topic %05d" % index]:
                raise Failure(f"instead of topic {index}: {parts}")


def commands():
    """Lines of the input; None when there is none yet."""
    rest = b""
    while True:
        if not select.select([0], [], [], TICK)[0]:
            yield None
            continue
        data = os.read(0, 1 << 20)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line.decode().split()


def main():
    peer = Peer(load(Path(sys.argv[1])))
    for words in commands():
        if words is None:
            peer.tick()
            continue
        try:
            answer = getattr(peer, words[0])(*words[1:])
            print("ok" if answer is None else f"ok {answer}", flush=True)
        except Failure as failure:
            print(f"error {' '.join(words)[:200]}: {failure}", flush=True)
    # Sockets with something left to send would hold the process.
    os._exit(0)


main()
