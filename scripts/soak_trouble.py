"""What a soak does to the broker beside its steady load: clients that come and go with sessions and
wills, bytes that break the protocol, bad payloads, wrong tokens, new certificates, new tokens.

Each kind has a thread and a rate of its own. What does not go as it must is a failure, in words.
"""
import collections
import contextlib
import http.client
import json
import random
import shutil
import signal
import ssl
import threading
import time

import lab
import wire

CHURNERS = 16  # devices that come and go
FAILURES_MAX = 10  # a thread with more ends
LIMIT_S = 60  # until what was asked for must have happened


class Trouble:
    """`pairs`: folders with server.pem and server.key; `served`: the pair that the broker reads."""

    def __init__(self, broker, folder, pairs, served, arguments):
        self.broker, self.folder, self.pairs, self.served = broker, folder, pairs, served
        self.counts = collections.Counter()
        self.failures = []
        self.wills, self.wills_received = set(), set()
        self.is_over = threading.Event()
        self.admin = Admin(broker, folder)
        for number in range(CHURNERS):
            self.admin.create(f"churn-{number}", churn_token(number))
        for number in range(CHURNERS):
            self.visit(number, False)  # a will needs a session that is there
        self.admin.create("churn-bad", churn_token("bad"))
        self.random = random.Random(7)
        kinds = [(self.come_and_go, 1 / arguments.churn), (self.break_rules, 1 / arguments.bad),
                 (self.reload, arguments.reload_every), (self.change_token, arguments.token_every)]
        self.threads = [threading.Thread(target=self.run, args=kind, daemon=True)
                        for kind in kinds]

    def start(self):
        self.counts["published"] = 0  # the ledger begins here
        for thread in self.threads:
            thread.start()

    def run(self, act, interval):
        """Calls `act` with 0, 1, 2... until the end."""
        begun, number = time.monotonic(), 0
        while not self.is_over.wait(max(0, begun + number * interval - time.monotonic())):
            self.attempt(act, number)
            number += 1
            if len(self.failures) >= FAILURES_MAX:
                return

    def attempt(self, act, *arguments):
        try:
            act(*arguments)
        except (OSError, ValueError, http.client.HTTPException, Failed) as error:
            # Whatever went wrong, it is the soak's result, with the name of who met it.
            self.failures.append(f"{act.__name__}, {arguments}: {type(error).__name__}: {error}")

    def finish(self):
        """Ends it, and takes what still waits for those who came and went."""
        self.is_over.set()
        for thread in self.threads:
            thread.join()
        end = time.monotonic() + LIMIT_S
        for number in range(CHURNERS):
            self.attempt(self.visit, number, False)
        while not self.wills <= self.wills_received and time.monotonic() < end:
            for number in range(CHURNERS):
                self.attempt(self.visit, number, False)
        self.counts["wills"] = len(self.wills)
        lost = self.wills - self.wills_received
        if lost:
            self.failures.append(f"{len(lost)} of {len(self.wills)} wills did not come")
        if self.wills_received - self.wills:
            self.failures.append("wills came of clients that said DISCONNECT")

    def come_and_go(self, number):
        """Every other client is lost, so that its will goes to its neighbour's kept session."""
        self.visit(number % CHURNERS, number // CHURNERS % 2 == 0)

    def visit(self, number, is_lost):
        self.counts["came and went"] += 1
        visit = str(self.counts["came and went"])
        client = wire.Client(self.broker.port)
        code = client.open(f"churn-{number}", churn_token(number), clean=False,
                           will=(f"churn/{(number + 1) % CHURNERS}/will", visit))
        if code != wire.ACCEPTED:
            raise Failed(f"CONNACK with {code}")
        client.send(wire.subscribe([f"churn/{number}/#"], 1))
        self.take_until(client, wire.SUBACK)
        client.send(wire.publish(f"churn/{number}/mark", visit.encode(), 2))
        self.counts["published"] += 1
        # Its own message is behind all that waited.
        while self.take_until(client, wire.PUBLISH) != (f"churn/{number}/mark", visit):
            pass
        if is_lost:
            self.wills.add(visit)
            client.abort()
        else:
            client.send(wire.packet(wire.DISCONNECT))
            client.close()

    def take_until(self, client, kind):
        """Acknowledges what is delivered on the way; answers topic and payload of a delivery."""
        while True:
            first, body = client.take()
            found = None
            if first & 0xF0 == wire.PUBLISH:
                end = 2 + int.from_bytes(body[:2], "big")
                found = body[2:end].decode(), body[end + 2:].decode()
                client.send(wire.packet(wire.PUBACK, body[end:end + 2]))
                if found[0].endswith("/will"):
                    self.wills_received.add(found[1])
            if first & 0xF0 == kind & 0xF0:
                return found

    def break_rules(self, number):
        """One of many ways to be no client; the broker has to close the connection."""
        ways = [self.noise, self.wrong_token, self.bad_payload, self.bad_packet, self.half_packet]
        ways[number % len(ways)](number // len(ways))
        self.counts["malformed"] += 1

    def noise(self, _):
        with wire.Client(self.broker.port) as client:
            # No CONNECT begins so, whatever follows.
            client.send(b"\x00" + self.random.randbytes(self.random.randint(1, 300)))
            self.expect_closed(client)

    def wrong_token(self, number):
        with wire.Client(self.broker.port) as client:
            code = client.open("nobody", f"no-token-{number}")
            if code not in (4, 5):
                raise Failed(f"a wrong token got {code}")
            self.expect_closed(client)

    def bad_payload(self, number):
        payloads = [b'{"temperature":', b"\xff\xfe", b"[1,2", b'{"a":1}x', b"", b"{" * 500]
        with self.connected() as client:
            client.send(wire.publish("v1/devices/me/telemetry", payloads[number % len(payloads)]))
            self.counts["published"] += 1
            self.counts["bad payloads"] += 1
            self.expect_closed(client)

    def bad_packet(self, number):
        packets = [b"\x30\xff\xff\xff\xff\x7f",  # a length of five bytes
                   b"\x36\x07\x00\x01a\x00\x01{}",  # QoS 3
                   b"\x80\x06\x00\x01\x00\x01a\x00",  # SUBSCRIBE without its flag
                   wire.packet(wire.SUBSCRIBE, b"\x00\x01"),  # without a filter
                   wire.packet(0xF0),  # AUTH is none of 3.1.1
                   wire.connect("again", churn_token("bad")),
                   b"\x30\xff\xff\x7f" + bytes(64)]  # 2 MiB
        with self.connected() as client:
            client.send(packets[number % len(packets)])
            self.expect_closed(client)

    def half_packet(self, number):
        whole = wire.publish("v1/devices/me/telemetry", b'{"temperature":21}')
        client = self.connected()
        client.send(whole[:1 + number % (len(whole) - 1)])
        client.abort()

    def connected(self):
        client = wire.Client(self.broker.port)
        code = client.open("churn-bad", churn_token("bad"))
        if code != wire.ACCEPTED:
            raise Failed(f"CONNACK with {code}")
        return client

    @staticmethod
    def expect_closed(client):
        if not client.is_closed():
            raise Failed("the broker did not close the connection")

    def reload(self, number):
        """The other certificate, and SIGHUP: it serves from the next handshake on."""
        pair = self.pairs[(number + 1) % len(self.pairs)]
        take_pair(pair, self.served)
        self.broker.process.send_signal(signal.SIGHUP)
        wanted = ssl.PEM_cert_to_DER_cert(first_certificate(pair))
        end = time.monotonic() + LIMIT_S
        while ssl.PEM_cert_to_DER_cert(self.shown()) != wanted:
            if time.monotonic() > end:
                raise Failed("the new certificate is not served")
            time.sleep(0.05)
        self.counts["certificates"] += 1

    def shown(self):
        return ssl.get_server_certificate(("127.0.0.1", self.broker.tls_port), timeout=LIMIT_S)

    def change_token(self, number):
        """A device is made, gets a new token, is revoked and removed; each step is looked at."""
        old, name = f"old-token-of-a-device-{number:08}", "churn-tokens"
        self.admin.create(name, old)
        with wire.Client(self.broker.port) as live:
            if live.open(name, old) != wire.ACCEPTED:
                raise Failed("a new device is refused")
            new = self.admin.post(f"/admin/v1/devices/{name}/rotate", {"grace_s": 0})["token"]
            self.expect_closed(live)
        self.expect_refused(name, old)
        with wire.Client(self.broker.port) as live:
            if live.open(name, new) != wire.ACCEPTED:
                raise Failed("a new token is refused")
            self.admin.post(f"/admin/v1/devices/{name}/revoke", {})
            self.expect_closed(live)
        self.expect_refused(name, new)
        self.admin.request("DELETE", f"/admin/v1/devices/{name}")
        self.counts["tokens"] += 1

    def expect_refused(self, name, token):
        with wire.Client(self.broker.port) as client:
            code = client.open(name, token)
            if code not in (4, 5):
                raise Failed(f"an ended token got {code}")


class Failed(Exception):
    """The broker did something else than it must."""


class Admin:
    """The admin API, by one request a connection, from several threads."""

    def __init__(self, broker, folder):
        self.port = broker.http_port
        token = (folder / "secrets/admin.token").read_text().strip()
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def create(self, name, token):
        scope = ["churn/#"]
        self.post("/admin/v1/devices",
                  {"name": name, "token": token, "publish": scope, "subscribe": scope})

    def post(self, path, body):
        return self.request("POST", path, json.dumps(body))

    def request(self, method, path, body=None):
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        with contextlib.closing(client):
            client.request(method, path, body, self.headers)
            reply = client.getresponse()
            said = reply.read()
        if reply.status not in (200, 201, 204):
            raise Failed(f"{method} {path}: {reply.status} {said.decode()}")
        return json.loads(said) if said else None


def churn_token(which):
    return f"churn-device-token-{which}"


def make_pairs(program, folder, count):
    """Certificates as a first start makes them, with their keys, in folders."""
    pairs = []
    for number in range(count):
        home = folder / f"pair-{number}"
        home.mkdir()
        lab.tollgate(program, home, list).start().stop()
        pairs.append(home)
    return pairs


def take_pair(pair, served):
    """Puts a pair where the broker reads it: each file whole, the certificate last."""
    for name, source in [("server.key", pair / "secrets/server.key"),
                         ("server.pem", pair / "certs/server.pem")]:
        shutil.copy2(source, served / f"{name}.new")
        (served / f"{name}.new").rename(served / name)


def first_certificate(pair):
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    inside = (pair / "certs/server.pem").read_text().split(begin)[1].split(end)[0]
    return f"{begin}{inside}{end}\n"
