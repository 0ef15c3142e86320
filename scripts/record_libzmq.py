#!/usr/bin/env python3
"""Records what libzmq releases put on the wire, into conformance/vectors/messaging.

A raw socket plays the other side with fixed keys and without randomness, so that every octet it sends is what a session
of tidegate-zmtp must send as well; what libzmq sends is measured. See README.md in that folder for the format.

Needs Python 3.9 or later with PyNaCl, and the libraries that scripts/setup-libzmq.sh installs:

    scripts/setup-libzmq.sh .venv/libzmq
    python3 -m venv .venv/record && .venv/record/bin/pip install pynacl
    .venv/record/bin/python scripts/record_libzmq.py --out conformance/vectors/messaging .venv/libzmq/*
"""

import argparse
import contextlib
import ctypes
import pathlib
import socket
import struct
import threading
import time

import nacl.bindings as nacl

TYPES = {"PAIR": 0, "PUB": 1, "SUB": 2, "REQ": 3, "REP": 4, "DEALER": 5, "ROUTER": 6, "PULL": 7, "PUSH": 8,
         "XPUB": 9, "XSUB": 10}
PARTNER = {"PAIR": "PAIR", "PUB": "SUB", "SUB": "PUB", "REQ": "REP", "REP": "REQ", "DEALER": "ROUTER",
           "ROUTER": "DEALER", "PULL": "PUSH", "PUSH": "PULL", "XPUB": "SUB", "XSUB": "PUB"}
WITH_IDENTITY = {"REQ", "DEALER", "ROUTER"}

# Options of libzmq.
SUBSCRIBE, UNSUBSCRIBE, LINGER, SNDBUF, RCVTIMEO, SNDTIMEO, IDENTITY = 6, 7, 17, 11, 27, 28, 5
PLAIN_SERVER, PLAIN_USERNAME, PLAIN_PASSWORD = 44, 45, 46
CURVE_SERVER, CURVE_PUBLICKEY, CURVE_SECRETKEY, CURVE_SERVERKEY = 47, 48, 49, 50
HEARTBEAT_IVL, HEARTBEAT_TIMEOUT = 75, 77
SNDMORE = 2

MORE, LONG, COMMAND = 1, 2, 4
DEADLINE = 5.0

# Keys of section 4.6.6 of the messaging sheet: 32 consecutive values each.
CLIENT, SERVER, CLIENT_TRANSIENT, SERVER_TRANSIENT = (bytes(range(n, n + 32)) for n in (0x01, 0x41, 0x81, 0xC1))
COOKIE_KEY, COOKIE_NONCE, WELCOME_NONCE, VOUCH_NONCE = b"\x55" * 32, b"\x11" * 16, b"\x22" * 16, b"\x33" * 16
public = nacl.crypto_scalarmult_base


class Library:
    """A libzmq, by its C API."""

    def __init__(self, path):
        # The library of a wheel does not always find the libsodium beside it by itself.
        for sodium in path.parent.glob("libsodium*"):
            ctypes.CDLL(str(sodium), ctypes.RTLD_GLOBAL)
        self.c = ctypes.CDLL(str(path))
        for name in ("zmq_ctx_new", "zmq_socket"):
            getattr(self.c, name).restype = ctypes.c_void_p
        version = [ctypes.c_int() for _ in range(3)]
        self.c.zmq_version(*map(ctypes.byref, version))
        self.version = ".".join(str(number.value) for number in version)
        self.new = tuple(number.value for number in version) >= (4, 3, 3)

    @contextlib.contextmanager
    def context(self):
        context = ctypes.c_void_p(self.c.zmq_ctx_new())
        sockets = []
        try:
            yield lambda kind: sockets.append(Socket(self.c, context, kind)) or sockets[-1]
        finally:
            for sock in sockets:
                sock.close()
            self.c.zmq_ctx_term(context)


class Socket:
    def __init__(self, c, context, kind):
        self.c, self.handle = c, ctypes.c_void_p(c.zmq_socket(context, TYPES[kind]))
        for option, value in ((LINGER, 0), (RCVTIMEO, 5000), (SNDTIMEO, 5000)):
            self.set(option, value)

    def set(self, option, value):
        value = struct.pack("i", value) if isinstance(value, int) else value
        assert self.c.zmq_setsockopt(self.handle, option, value, ctypes.c_size_t(len(value))) == 0, option

    def bind(self):
        """Binds to a free port of the loopback interface."""
        assert self.c.zmq_bind(self.handle, b"tcp://127.0.0.1:*") == 0
        endpoint, size = ctypes.create_string_buffer(100), ctypes.c_size_t(100)
        assert self.c.zmq_getsockopt(self.handle, 32, endpoint, ctypes.byref(size)) == 0
        return int(endpoint.value.rsplit(b":", 1)[1])

    def bind_to(self, endpoint):
        assert self.c.zmq_bind(self.handle, endpoint) == 0

    def connect(self, port):
        assert self.c.zmq_connect(self.handle, b"tcp://127.0.0.1:%d" % port) == 0

    def send(self, *parts):
        for index, part in enumerate(parts):
            flags = SNDMORE if index + 1 < len(parts) else 0
            assert self.c.zmq_send(self.handle, part, ctypes.c_size_t(len(part)), flags) == len(part)

    def receive(self):
        parts = []
        while True:
            buffer = ctypes.create_string_buffer(65536)
            size = self.c.zmq_recv(self.handle, buffer, ctypes.c_size_t(65536), 0)
            if size < 0:
                raise TimeoutError("libzmq received nothing")
            parts.append(buffer.raw[:size])
            more, length = ctypes.c_int(), ctypes.c_size_t(4)
            self.c.zmq_getsockopt(self.handle, 13, ctypes.byref(more), ctypes.byref(length))
            if not more.value:
                return parts

    def close(self):
        if self.handle:
            self.c.zmq_close(self.handle)
            self.handle = None


def frame(flags, body):
    if len(body) < 256:
        return bytes([flags, len(body)]) + body
    return bytes([flags | LONG]) + struct.pack(">Q", len(body)) + body


def command(name, data=b""):
    return bytes([len(name)]) + name + data


def properties(kind, identity=b""):
    def one(name, value):
        return bytes([len(name)]) + name + struct.pack(">I", len(value)) + value

    return one(b"Socket-Type", kind.encode()) + (one(b"Identity", identity) if kind in WITH_IDENTITY else b"")


def box(key, nonce, text):
    return nacl.crypto_box_easy_afternm(text, nonce, key)


def unbox(key, nonce, sealed):
    return nacl.crypto_box_open_easy_afternm(sealed, nonce, key)


class Peer:
    """The raw side of a recording."""

    def __init__(self, stream, kind, mechanism, server):
        self.stream, self.kind, self.mechanism, self.server = stream, kind, mechanism, server
        self.lines, self.read = [], b""
        self.key = None
        stream.settimeout(DEADLINE)

    def note(self, line):
        self.lines.append(line)

    def send(self, data):
        self.note("> " + data.hex())
        self.stream.sendall(data)

    def octets(self, count):
        """Exactly so many octets; each read is a line."""
        while len(self.read) < count:
            data = self.stream.recv(65536)
            if not data:
                raise EOFError
            self.note("< " + data.hex())
            self.read += data
        taken, self.read = self.read[:count], self.read[count:]
        return taken

    def trim(self):
        """Takes out of the recording what was read and not looked at, a PING at the very end."""
        while self.read:
            index = max(index for index, line in enumerate(self.lines) if line.startswith("< "))
            octets = bytes.fromhex(self.lines[index][2:])
            count = min(len(octets), len(self.read))
            self.read = self.read[:-count]
            if count == len(octets):
                del self.lines[index]
            else:
                self.lines[index] = "< " + octets[:-count].hex()

    def greet(self):
        """The greeting in the stages in which libzmq waits for it."""
        mine = bytearray(64)
        mine[0], mine[9], mine[10], mine[11] = 0xFF, 0x7F, 3, 1
        mine[12:12 + len(self.mechanism)] = self.mechanism.encode()
        mine[32] = self.server
        theirs = self.octets(10)
        self.send(bytes(mine[:10]))
        theirs += self.octets(1)
        self.send(bytes(mine[10:11]))
        theirs += self.octets(53)
        self.send(bytes(mine[11:]))
        assert theirs[12:32].rstrip(b"\0") == self.mechanism.encode()
        self.minor = theirs[11]

    def frame(self):
        flags, size = self.octets(2)
        if flags & LONG:
            size = struct.unpack(">Q", bytes([size]) + self.octets(7))[0]
        return flags, self.octets(size)

    def command(self, name):
        flags, body = self.frame()
        assert flags & COMMAND and body.startswith(command(name)), (name, flags, body)
        return body[len(name) + 1:]

    def handshake(self, credentials=(b"alice", b"secret")):
        mine = properties(self.kind)
        self.greet()
        if self.mechanism == "NULL":
            self.send(frame(COMMAND, command(b"READY", mine)))
            theirs = self.command(b"READY")
        elif self.mechanism == "PLAIN" and not self.server:
            user, password = credentials
            self.send(frame(COMMAND, command(b"HELLO", bytes([len(user)]) + user + bytes([len(password)]) + password)))
            flags, body = self.frame()
            if body != command(b"WELCOME"):
                self.note("? closed AuthFailed " + body[-3:].decode())
                return False
            self.send(frame(COMMAND, command(b"INITIATE", mine)))
            theirs = self.command(b"READY")
        elif self.mechanism == "PLAIN":
            self.command(b"HELLO")
            self.note("? authenticate")
            self.send(frame(COMMAND, command(b"WELCOME")))
            theirs = self.command(b"INITIATE")
            self.send(frame(COMMAND, command(b"READY", mine)))
        elif not self.server:
            theirs = self.curve_client(mine)
        else:
            theirs = self.curve_server(mine)
        kind = theirs[16:16 + struct.unpack(">I", theirs[12:16])[0]].decode()
        self.note(f"? up {kind} 3.{min(self.minor, 1)}")
        return True

    def curve_client(self, mine):
        key = nacl.crypto_box_beforenm(public(SERVER), CLIENT_TRANSIENT)
        one, two = struct.pack(">Q", 1), struct.pack(">Q", 2)
        hello = b"\1\0" + bytes(72) + public(CLIENT_TRANSIENT) + one
        self.send(frame(COMMAND, command(b"HELLO", hello + box(key, b"CurveZMQHELLO---" + one, bytes(64)))))
        welcome = self.command(b"WELCOME")
        text = unbox(key, b"WELCOME-" + welcome[:16], welcome[16:])
        transient, cookie = text[:32], text[32:]
        self.key = nacl.crypto_box_beforenm(transient, CLIENT_TRANSIENT)
        vouch_key = nacl.crypto_box_beforenm(transient, CLIENT)
        vouch = VOUCH_NONCE + box(vouch_key, b"VOUCH---" + VOUCH_NONCE, public(CLIENT_TRANSIENT) + public(SERVER))
        sealed = box(self.key, b"CurveZMQINITIATE" + two, public(CLIENT) + vouch + mine)
        self.send(frame(COMMAND, command(b"INITIATE", cookie + two + sealed)))
        ready = self.command(b"READY")
        self.counter, self.prefixes = 2, (b"CurveZMQMESSAGEC", b"CurveZMQMESSAGES")
        return unbox(self.key, b"CurveZMQREADY---" + ready[:8], ready[8:])

    def curve_server(self, mine):
        hello = self.command(b"HELLO")
        transient = hello[74:106]
        key = nacl.crypto_box_beforenm(transient, SERVER)
        assert unbox(key, b"CurveZMQHELLO---" + hello[106:114], hello[114:]) == bytes(64)
        cookie = COOKIE_NONCE + nacl.crypto_secretbox_easy(transient + SERVER_TRANSIENT, b"COOKIE--" + COOKIE_NONCE,
                                                           COOKIE_KEY)
        sealed = box(key, b"WELCOME-" + WELCOME_NONCE, public(SERVER_TRANSIENT) + cookie)
        self.send(frame(COMMAND, command(b"WELCOME", WELCOME_NONCE + sealed)))
        initiate = self.command(b"INITIATE")
        assert initiate[:96] == cookie
        self.key = nacl.crypto_box_beforenm(transient, SERVER_TRANSIENT)
        text = unbox(self.key, b"CurveZMQINITIATE" + initiate[96:104], initiate[104:])
        self.note("? authenticate")
        one = struct.pack(">Q", 1)
        self.send(frame(COMMAND, command(b"READY", one + box(self.key, b"CurveZMQREADY---" + one, mine))))
        self.counter, self.prefixes = 1, (b"CurveZMQMESSAGES", b"CurveZMQMESSAGEC")
        return text[128:]

    def say(self, flags, body):
        """One frame of traffic."""
        if not self.key:
            return self.send(frame(flags, body))
        self.counter += 1
        inner = (1 if flags & MORE else 0) | (2 if flags & COMMAND else 0)
        counter = struct.pack(">Q", self.counter)
        sealed = box(self.key, self.prefixes[0] + counter, bytes([inner]) + body)
        self.send(frame(0, command(b"MESSAGE", counter + sealed)))

    def hear(self):
        """One frame of traffic of libzmq, with its flags."""
        flags, body = self.frame()
        if not self.key:
            return flags & (MORE | COMMAND), body
        assert body.startswith(command(b"MESSAGE")) and not flags & COMMAND
        text = unbox(self.key, self.prefixes[1] + body[8:16], body[16:])
        return (MORE if text[0] & 1 else 0) | (COMMAND if text[0] & 2 else 0), text[1:]

    def message(self, *parts):
        """Sends a message."""
        self.note("! send " + " ".join(part.hex() or "-" for part in parts))
        for index, part in enumerate(parts):
            self.say(MORE if index + 1 < len(parts) else 0, part)

    def expect(self, *parts):
        """Awaits a message of libzmq, answering its PINGs; gives how many of them came between the parts."""
        between = 0
        for index, part in enumerate(parts):
            while True:
                flags, body = self.hear()
                if not flags & COMMAND:
                    break
                assert self.pong(body)
                between += 0 < index
            assert body == part and bool(flags & MORE) == (index + 1 < len(parts)), (flags, body)
        self.note("? message " + " ".join(part.hex() or "-" for part in parts))
        return between

    def pong(self, body):
        if body.startswith(b"\4PING"):
            self.say(COMMAND, command(b"PONG", body[7:23]))
            return True
        return False

    def subscription(self, on, topic):
        """Awaits a subscription of libzmq in any form; gives whether it was a command."""
        flags, body = self.hear()
        name = b"\x09SUBSCRIBE" if on else b"\x06CANCEL"
        assert body == (name if flags & COMMAND else bytes([on])) + topic, body
        self.note(f"? {'subscribe' if on else 'cancel'} {topic.hex() or '-'}")
        return bool(flags & COMMAND)

    def subscription_any(self, topics):
        """Awaits one subscription of these, whose order is libzmq's."""
        flags, body = self.hear()
        head = b"\x09SUBSCRIBE" if flags & COMMAND else b"\1"
        topic = body[len(head):]
        assert body.startswith(head) and topic in topics, body
        self.note("? subscribe " + (topic.hex() or "-"))
        return topic

    def subscribe(self, on, topic):
        """Sends a subscription in the form for the version of libzmq."""
        self.note(f"! {'subscribe' if on else 'cancel'} {topic.hex() or '-'}")
        if self.minor:
            self.say(COMMAND, command(b"SUBSCRIBE" if on else b"CANCEL", topic))
        else:
            self.say(0, bytes([on]) + topic)


class Recorder:
    def __init__(self, library, out):
        self.library, self.out = library, out / library.version
        self.out.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def session(self, name, kind, mechanism="NULL", server=False, connects=False, small=False, **options):
        """A socket of libzmq of type `kind` and its raw partner, which has the role of the server if `server`."""
        with self.library.context() as socket_of:
            sock = socket_of(kind)
            for option, value in options.get("set", ()):
                sock.set(option, value)
            handler = options.get("zap")
            if handler:
                threading.Thread(target=zap, args=(socket_of("REP"), handler), daemon=True).start()
                time.sleep(0.1)
            if connects:
                listener = socket.create_server(("127.0.0.1", 0))
                sock.connect(listener.getsockname()[1])
                stream = listener.accept()[0]
            else:
                stream = socket.socket()
                if small:
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                stream.connect(("127.0.0.1", sock.bind()))
            peer = Peer(stream, PARTNER[kind], mechanism, server)
            yield sock, peer
            stream.close()
            peer.trim()
        role = {"NULL": "", "PLAIN": " server" if server else " client alice secret",
                "CURVE": " server" if server else " client"}[mechanism]
        head = [f"# libzmq {self.library.version}, {kind}, {'connecting' if connects else 'binding'}",
                f"= session {PARTNER[kind]} {mechanism}{role}"]
        (self.out / f"{name}.txt").write_text("\n".join(head + peer.lines) + "\n")


def zap(sock, status):
    """Answers one request."""
    sock.bind_to(b"inproc://zeromq.zap.01")
    with contextlib.suppress(TimeoutError):
        request = sock.receive()
        sock.send(b"1.0", request[1], status, b"", b"alice" if status == b"200" else b"", b"")


def record(library, out):
    recorder = Recorder(library, out)
    identity = [(IDENTITY, b"box")]

    for kind in TYPES:
        with recorder.session(f"null-{kind.lower()}", kind) as (_, peer):
            peer.handshake()
    with recorder.session("null-dealer-connecting", "DEALER", connects=True, set=identity) as (sock, peer):
        peer.handshake()
        sock.send(b"", b"a" * 255, b"b" * 256)
        peer.expect(b"", b"a" * 255, b"b" * 256)
        peer.message(b"reply", b"")
        assert sock.receive() == [b"reply", b""]

    # Credentials
    with recorder.session("plain-server", "PULL", "PLAIN", set=[(PLAIN_SERVER, 1)], zap=b"200") as (sock, peer):
        assert peer.handshake()
        peer.message(b"work")
        assert sock.receive() == [b"work"]
    with recorder.session("plain-server-refusing", "PULL", "PLAIN", set=[(PLAIN_SERVER, 1)], zap=b"400") as (_, peer):
        assert not peer.handshake()
    names = [(PLAIN_USERNAME, b"bob"), (PLAIN_PASSWORD, b"pass")]
    with recorder.session("plain-client", "PUSH", "PLAIN", server=True, connects=True, set=names) as (sock, peer):
        assert peer.handshake()
        sock.send(b"work")
        peer.expect(b"work")

    # Keys
    keys = [(CURVE_SERVER, 1), (CURVE_SECRETKEY, SERVER)]
    beats = [(HEARTBEAT_IVL, 100)]
    with recorder.session("curve-server", "ROUTER", "CURVE", set=keys) as (sock, peer):
        peer.handshake()
        peer.message(b"hello", b"", b"x" * 300)
        parts = sock.receive()
        assert parts[1:] == [b"hello", b"", b"x" * 300]
        sock.send(parts[0], b"answer", b"y" * 300)
        peer.expect(b"answer", b"y" * 300)
    keys = [(CURVE_SERVERKEY, public(SERVER)), (CURVE_PUBLICKEY, public(CLIENT)), (CURVE_SECRETKEY, CLIENT)]
    with recorder.session("curve-client", "DEALER", "CURVE", server=True, connects=True, set=keys + identity) as (
            sock, peer):
        peer.handshake()
        sock.send(b"hello", b"x" * 300)
        peer.expect(b"hello", b"x" * 300)
        peer.message(b"answer", b"")
        assert sock.receive() == [b"answer", b""]
    with recorder.session("curve-subscriptions", "SUB", "CURVE", server=True, connects=True,
                          set=keys + [(SUBSCRIBE, b"A")]) as (sock, peer):
        peer.handshake()
        peer.subscription(True, b"A")
        sock.set(UNSUBSCRIBE, b"A")
        peer.subscription(False, b"A")

    # Subscriptions
    with recorder.session("subscriptions-sub", "SUB", connects=True, set=[(SUBSCRIBE, b"A"), (SUBSCRIBE, b"")]) as (
            sock, peer):
        peer.handshake()
        first = peer.subscription_any({b"A", b""})
        peer.subscription_any({b"A", b""} - {first})
        sock.set(SUBSCRIBE, b"live")
        assert peer.subscription(True, b"live") == library.new
        sock.set(UNSUBSCRIBE, b"live")
        assert peer.subscription(False, b"live") == library.new
        peer.message(b"A1", b"payload")
        assert sock.receive() == [b"A1", b"payload"]
    with recorder.session("subscriptions-xsub", "XSUB", connects=True) as (sock, peer):
        peer.handshake()
        sock.send(b"\1live")
        assert not peer.subscription(True, b"live")
        sock.send(b"\0live")
        assert not peer.subscription(False, b"live")
    with recorder.session("subscriptions-xpub", "XPUB") as (sock, peer):
        peer.handshake()
        peer.subscribe(True, b"A")
        assert sock.receive() == [b"\1A"]
        sock.send(b"A1", b"payload")
        peer.expect(b"A1", b"payload")
        peer.subscribe(False, b"A")
        assert sock.receive() == [b"\0A"]

    # Heartbeats; releases before 4.2 have none.
    if library.version.startswith("4.1"):
        return
    with recorder.session("ping", "PUSH", set=beats) as (sock, peer):
        peer.handshake()
        for _ in range(2):
            flags, body = peer.hear()
            assert flags & COMMAND and peer.pong(body)
        sock.send(b"work")
        peer.expect(b"work")
    with recorder.session("ping-curve", "PUSH", "CURVE", server=True, connects=True, set=keys + beats) as (sock, peer):
        peer.handshake()
        flags, body = peer.hear()
        assert flags & COMMAND and peer.pong(body)
        sock.send(b"work")
        peer.expect(b"work")
    if library.version not in ("4.2.5", "4.3.5"):
        return
    # A reader that is slow enough that the heartbeat falls into a message of many parts.
    with recorder.session("ping-between-parts", "PUSH", small=True, set=[(HEARTBEAT_IVL, 30), (HEARTBEAT_TIMEOUT, 5000), (SNDBUF, 4096)]) as (
            sock, peer):
        peer.handshake()
        parts = [b"%03d" % index + b"." * 250 for index in range(48)]
        sock.send(*parts)
        time.sleep(0.2)
        assert peer.expect(*parts), "no PING came between the parts; try again"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=pathlib.Path, required=True)
    arguments.add_argument("directory", nargs="+", type=pathlib.Path, help="holds one release of libzmq")
    arguments = arguments.parse_args()
    for directory in arguments.directory:
        path = next(directory.glob("libzmq*.so*"), None)
        if path is None:
            raise SystemExit(f"{directory}: holds no libzmq; see scripts/setup-libzmq.sh")
        library = Library(path)
        record(library, arguments.out)
        print(library.version, "recorded from", path)


if __name__ == "__main__":
    main()
