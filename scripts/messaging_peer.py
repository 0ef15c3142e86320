"""The pyzmq side of the demo's second act: publishes or subscribes with CURVE, and checks what it got.

usage: messaging_peer.py pub|sub ENDPOINT COUNT OWN_SECRET_FILE SERVER_PUBLIC_FILE|-
The publisher binds and is the CURVE server, the subscriber connects and is the client.
"""

import sys

import zmq


def key(path):
    with open(path, "rb") as file:
        return file.read().strip()


def main():
    role, endpoint, count, secret_file, server_file = sys.argv[1:]
    count = int(count)
    context = zmq.Context()
    socket = context.socket(zmq.XPUB if role == "pub" else zmq.SUB)
    socket.linger = 5000
    socket.rcvtimeo = 10000
    # Everything is to arrive, however far behind a subscriber is.
    socket.set_hwm(0)
    secret = key(secret_file)
    socket.curve_secretkey = secret
    socket.curve_publickey = zmq.curve_public(secret)
    if role == "pub":
        socket.curve_server = True
        socket.bind(endpoint)
        print(socket.last_endpoint.decode(), flush=True)
        # The first subscription: somebody listens.
        assert socket.recv() == b"\x01tide"
        for number in range(count):
            socket.send_multipart([b"tide", str(number).encode()])
    else:
        socket.curve_serverkey = key(server_file)
        socket.subscribe(b"tide")
        socket.connect(endpoint)
        for number in range(count):
            assert socket.recv_multipart() == [b"tide", str(number).encode()], number
        print(f"{count} messages, none missing, all in order", flush=True)
    socket.close()
    context.term()


main()
