"""The least of an MQTT 3.1.1 client: packets, and a socket that speaks them.

For what the generator (tollgate bench) does not do: sessions that come and go, wills, many
subscriptions, bytes that break the protocol.
"""
import socket
import struct

LIMIT_S = 30  # longest wait for an answer
ACCEPTED = 0

CONNECT, CONNACK, PUBLISH, PUBACK = 0x10, 0x20, 0x30, 0x40
SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 0x82, 0x90, 0xC0, 0xD0, 0xE0


def text(value):
    encoded = value.encode()
    return struct.pack(">H", len(encoded)) + encoded


def length(count):
    out = bytearray()
    while True:
        count, low = divmod(count, 128)
        out.append(low | (0x80 if count else 0))
        if not count:
            return bytes(out)


def packet(first, body=b""):
    return bytes([first]) + length(len(body)) + body


def connect(client_id, token, clean=True, will=None, keep_alive_s=60):
    """`will`: topic and payload of a QoS 1 message."""
    flags = 0x80 | (0x02 if clean else 0) | (0x0C if will else 0)
    body = text("MQTT") + bytes([4, flags]) + struct.pack(">H", keep_alive_s) + text(client_id)
    if will:
        body += text(will[0]) + text(will[1])
    return packet(CONNECT, body + text(token))


def publish(topic, payload, packet_id=1):
    """QoS 1."""
    return packet(PUBLISH | 0x02, text(topic) + struct.pack(">H", packet_id) + payload)


def subscribe(filters, packet_id=1):
    """QoS 1."""
    asked = b"".join(text(one) + b"\x01" for one in filters)
    return packet(SUBSCRIBE, struct.pack(">H", packet_id) + asked)


class Client:
    """A connection; what it reads is kept until a packet is whole."""

    def __init__(self, port, source="127.0.0.1"):
        self.socket = socket.create_connection(("127.0.0.1", port), LIMIT_S, (source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.held = b""

    def send(self, data):
        self.socket.sendall(data)

    def take(self):
        """The next packet: its first byte and its body. ConnectionError when there is none."""
        while True:
            found = split(self.held)
            if found:
                first, body, self.held = found
                return first, body
            more = self.socket.recv(65536)
            if not more:
                raise ConnectionResetError("the broker closed the connection")
            self.held += more

    def expect(self, kind):
        """The body of the next packet, which has to be of this kind."""
        first, body = self.take()
        if first & 0xF0 != kind & 0xF0:
            raise ConnectionError(f"packet {first:#04x} instead of {kind:#04x}")
        return body

    def open(self, *arguments, **more):
        """CONNECT; answers the code of CONNACK."""
        self.send(connect(*arguments, **more))
        return self.expect(CONNACK)[1]

    def is_closed(self):
        """Reads on until the broker closes the connection; false if it does not in time."""
        try:
            while self.socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except ConnectionError:
            pass
        return True

    def close(self):
        self.socket.close()

    def abort(self):
        """Ends it as a client that loses power: no DISCONNECT, and a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def split(data):
    """First byte, body and rest of a packet; None while it is not whole."""
    count = shift = 0
    for at, byte in enumerate(data[1:5], 2):
        count |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            if len(data) < at + count:
                return None
            return data[0], data[at:at + count], data[at + count:]
    return None
