"""The scenarios of `scenarios.rs` with paho-mqtt: what its callbacks say, one JSON line for each.

Arguments: one JSON object with port, version ("3.1", "3.1.1" or "5"), token, prefix (of topics and
client ids) and scenarios (names), and for TLS ca_file. Nothing is judged here.
"""

import json
import queue
import socket
import sys
import time
import traceback

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

VERSIONS = {
    "3.1": MQTTProtocolVersion.MQTTv31,
    "3.1.1": MQTTProtocolVersion.MQTTv311,
    "5": MQTTProtocolVersion.MQTTv5,
}
TIMEOUT_S = 60
ERRAND = json.loads(sys.argv[1])
IS_V5 = ERRAND["version"] == "5"
KEEP_S = 3600


def properties(packet, **values):
    """MQTT 5 properties, or none."""
    made = Properties(packet)
    for name, value in values.items():
        if value is not None:
            setattr(made, name, value)
    return made if IS_V5 and not made.isEmpty() else None


class Peer:
    """One connection."""

    def __init__(self, name, clean=True, keep=False, will=None, manual=False, **connect):
        self.messages, self.acks = queue.Queue(), queue.Queue()
        self.connack = queue.Queue()
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{ERRAND['prefix']}-{name}",
            protocol=VERSIONS[ERRAND["version"]],
            clean_session=None if IS_V5 else clean and not keep,
            manual_ack=manual,
        )
        client.on_connect = lambda c, u, flags, code, props: self.connack.put((flags, code, props))
        client.on_message = lambda c, u, message: self.messages.put(message)
        client.on_subscribe = lambda c, u, mid, codes, props: self.acks.put((mid, codes))
        client.on_unsubscribe = lambda c, u, mid, codes, props: self.acks.put((mid, codes))
        client.on_disconnect = lambda c, *_: c.disconnect()  # else it connects again by itself
        client.username_pw_set(ERRAND["token"])
        if "ca_file" in ERRAND:
            client.tls_set(ca_certs=ERRAND["ca_file"])
        if will:
            topic, payload, delay = will
            client.will_set(
                topic, payload, 1,
                properties=properties(PacketTypes.WILLMESSAGE, WillDelayInterval=delay),
            )
        self.client = client
        connect["SessionExpiryInterval"] = KEEP_S if keep else None
        more = {"clean_start": clean} if IS_V5 else {}
        client.connect(
            "localhost", ERRAND["port"],
            properties=properties(PacketTypes.CONNECT, **connect), **more,
        )
        client.loop_start()
        flags, code, self.announced = self.connack.get(timeout=TIMEOUT_S)
        if code.is_failure:
            raise RuntimeError(f"refused: {code}")
        self.session_present = flags.session_present

    def subscribe(self, topic, qos=1, identifier=None, **options):
        if IS_V5:
            props = properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=identifier)
            options = SubscribeOptions(qos=qos, **options)
            self._acked(self.client.subscribe(topic, options=options, properties=props))
        else:
            self._acked(self.client.subscribe(topic, qos))

    def unsubscribe(self, topic):
        self._acked(self.client.unsubscribe(topic))

    def _acked(self, request):
        mid, codes = self.acks.get(timeout=TIMEOUT_S)
        if mid != request[1] or any(code.is_failure for code in codes):
            raise RuntimeError(f"not granted: {codes}")

    def send(self, topic, payload, qos=1, retain=False, **props):
        return self.client.publish(
            topic, payload, qos, retain, properties(PacketTypes.PUBLISH, **props)
        )

    def publish(self, *arguments, **keywords):
        sent = self.send(*arguments, **keywords)
        sent.wait_for_publish(TIMEOUT_S)
        if not sent.is_published():
            raise TimeoutError("no end of a publish")

    def next(self):
        return self.messages.get(timeout=TIMEOUT_S)

    def take(self, count):
        return [self.next() for _ in range(count)]

    def drop(self):
        """Leaves without a word."""
        self.client.socket().shutdown(socket.SHUT_RDWR)
        self.client.loop_stop()

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


def text(message):
    return message.payload.decode()


def texts(messages):
    return [text(message) for message in messages]


def retained(topic):
    publisher = Peer("p")
    publisher.publish(topic, "kept", retain=True)
    first = Peer("first")
    first.subscribe(topic)
    seen = first.take(1)
    publisher.publish(topic, "live", retain=True)
    publisher.publish(topic, "", retain=True)
    seen += first.take(2)
    second = Peer("second")
    second.subscribe(topic)
    publisher.publish(topic, "marker")
    shown = [[[text(m), m.retain] for m in some] for some in (seen, second.take(1))]
    for peer in (publisher, first, second):
        peer.close()
    return {"first": shown[0], "second": shown[1]}


def filters(topic):
    peer = Peer("p")
    peer.subscribe(f"{topic}/+/x")
    peer.subscribe(f"{topic}/b/#")
    for name in ("a/y", "a/x", "b", "b/c/d"):
        peer.publish(f"{topic}/{name}", name)
    peer.unsubscribe(f"{topic}/b/#")
    for name in ("b/c", "c/x"):
        peer.publish(f"{topic}/{name}", name)
    seen = texts(peer.take(4))
    peer.close()
    return {"got": seen}


def will(topic):
    watcher = Peer("watcher")
    watcher.subscribe(topic)
    Peer("lost", will=(topic, "gone", None)).drop()
    seen = watcher.take(1)
    Peer("left", will=(topic, "not this", None)).close()
    watcher.publish(topic, "marker")
    seen += watcher.take(1)
    watcher.close()
    return {"got": texts(seen)}


def will_delay(topic):
    watcher = Peer("watcher")
    watcher.subscribe(topic)
    Peer("back", keep=True, will=(topic, "cancelled", 3600)).drop()
    Peer("back", clean=False).close()
    Peer("anew", keep=True, will=(topic, "ended", 3600)).drop()
    Peer("anew").close()
    seen = watcher.take(1)
    before = time.monotonic()
    Peer("late", keep=True, will=(topic, "waited", 1)).drop()
    seen += watcher.take(1)
    waited = time.monotonic() - before
    watcher.close()
    return {"got": texts(seen), "waited": waited >= 1}


def shared(topic):
    everything, one, two = Peer("all"), Peer("one"), Peer("two")
    everything.subscribe(topic)
    for member in (one, two):
        member.subscribe(f"$share/group/{topic}")
    numbers = [str(number) for number in range(40)]
    for number in numbers[:20]:
        everything.publish(topic, number)
    plain = texts(everything.take(20))
    parts = until(lambda: [one.messages.qsize(), two.messages.qsize()], lambda n: sum(n) >= 20)
    halves = texts(one.take(parts[0])) + texts(two.take(parts[1]))
    one.drop()
    for number in numbers[20:]:
        everything.publish(topic, number)
    rest = texts(two.take(20))
    everything.close()
    two.close()
    return {
        "plain": plain == numbers[:20],
        "shared": sorted(halves, key=int) == numbers[:20],
        "fair": min(parts) > 0,
        "rest": sorted(rest, key=int) == numbers[20:],
    }


def until(look, is_right):
    deadline = time.monotonic() + TIMEOUT_S
    while not is_right(found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"still {found}")
        time.sleep(0.01)
    return found


def session(topic):
    away = Peer("away", keep=True)
    present = [away.session_present]
    away.subscribe(topic, 2)
    away.close()
    publisher = Peer("p")
    for qos, payload in ((1, "one"), (1, "two"), (2, "three")):
        publisher.publish(topic, payload, qos)
    away = Peer("away", clean=False, keep=True)
    present.append(away.session_present)
    seen = [[text(message), message.qos] for message in away.take(3)]
    away.close()
    away = Peer("away")
    present.append(away.session_present)
    publisher.publish(topic, "for nobody")
    away.subscribe(topic)
    publisher.publish(topic, "marker")
    anew = texts(away.take(1))
    for peer in (away, publisher):
        peer.close()
    return {"present": present, "got": seen, "anew": anew}


def resend(topic):
    receiver = Peer("receiver", keep=True, manual=True)
    receiver.subscribe(topic)
    publisher = Peer("p")
    publisher.publish(topic, "again")
    seen = receiver.take(1)
    receiver.drop()
    receiver = Peer("receiver", clean=False, keep=True, manual=True)
    seen += receiver.take(1)
    receiver.client.ack(seen[-1].mid, seen[-1].qos)
    publisher.publish(topic, "next")
    seen += receiver.take(1)
    for peer in (receiver, publisher):
        peer.close()
    return {"got": [[text(message), message.dup] for message in seen]}


def qos2(topic):
    subscriber, publisher = Peer("s"), Peer("p")
    subscriber.subscribe(topic, 2)
    numbers = [str(number) for number in range(50)]
    sent = [publisher.send(topic, number, 2) for number in numbers]
    for message in sent:
        message.wait_for_publish(TIMEOUT_S)
    publisher.publish(topic, "end", 2)
    seen = subscriber.take(51)
    for peer in (subscriber, publisher):
        peer.close()
    return {
        "in order, once": texts(seen) == numbers + ["end"],
        "qos": sorted({message.qos for message in seen}),
    }


def alias_to(topic):
    subscriber, publisher = Peer("s"), Peer("p")
    subscriber.subscribe(f"{topic}/#")
    publisher.publish(f"{topic}/a", "1", TopicAlias=1)
    publisher.publish(f"{topic}/b", "2", TopicAlias=2)
    publisher.publish("", "3", TopicAlias=1)
    publisher.publish("", "4", TopicAlias=2)
    publisher.publish(f"{topic}/c", "5", TopicAlias=1)
    publisher.publish("", "6", TopicAlias=1)
    seen = [[message.topic[-1], text(message)] for message in subscriber.take(6)]
    for peer in (subscriber, publisher):
        peer.close()
    return {"got": seen}


def alias_from(topic):
    subscriber, publisher = Peer("s", TopicAliasMaximum=2), Peer("p")
    subscriber.subscribe(f"{topic}/#")
    topics, seen, used = {}, [], 0
    for turn in "12":
        for name in "abc":
            publisher.publish(f"{topic}/{name}", turn)
    for message in subscriber.take(6):
        alias = getattr(message.properties, "TopicAlias", None)
        used += message.topic == ""
        topic = message.topic or topics[alias]  # paho leaves this to its user
        if alias:
            topics[alias] = topic
        seen.append([topic[-1], text(message)])
    for peer in (subscriber, publisher):
        peer.close()
    return {"got": seen, "aliases": sorted(topics), "used": used > 0}


def flow_in(topic):
    subscriber, everything = Peer("s", manual=True, ReceiveMaximum=3), Peer("all")
    subscriber.subscribe(topic)
    everything.subscribe(topic)
    for number in range(10):
        everything.publish(topic, str(number))
    everything.take(10)
    held = subscriber.take(3)
    subscriber.subscribe(f"{topic}/marker")
    more = subscriber.messages.qsize()
    for message in held:
        subscriber.client.ack(message.mid, message.qos)
    for _ in range(7):
        message = subscriber.next()
        subscriber.client.ack(message.mid, message.qos)
        held.append(message)
    for peer in (subscriber, everything):
        peer.close()
    return {"beyond 3": more, "got": [int(payload) for payload in texts(held)]}


def flow_out(topic):
    subscriber, publisher = Peer("s"), Peer("p")
    subscriber.subscribe(topic, 2)
    sent = [publisher.send(topic, str(number), 1 + number % 2) for number in range(300)]
    for message in sent:
        message.wait_for_publish(TIMEOUT_S)
    seen = sorted(int(payload) for payload in texts(subscriber.take(300)))
    for peer in (subscriber, publisher):
        peer.close()
    return {"all": seen == list(range(300))}


def request(topic):
    server, asker = Peer("server"), Peer("asker")
    server.subscribe(f"{topic}/ask")
    asker.subscribe(f"{topic}/answer")
    asker.publish(
        f"{topic}/ask", "ping", ResponseTopic=f"{topic}/answer", CorrelationData=b"c-1",
        UserProperty=[("a", "1"), ("a", "2")], ContentType="text/plain",
        PayloadFormatIndicator=1, MessageExpiryInterval=100,
    )
    asked = server.next().properties
    server.publish(asked.ResponseTopic, "pong", CorrelationData=asked.CorrelationData)
    answer = asker.next()
    for peer in (server, asker):
        peer.close()
    return {
        "user": [list(pair) for pair in asked.UserProperty],
        "type": asked.ContentType,
        "format": asked.PayloadFormatIndicator,
        "expiry": 0 < asked.MessageExpiryInterval <= 100,
        "answer": text(answer),
        "correlation": answer.properties.CorrelationData.decode(),
    }


def identifiers(topic):
    subscriber = Peer("s")
    subscriber.subscribe(f"{topic}/#", identifier=1)
    subscriber.subscribe(f"{topic}/+", identifier=268435455)
    subscriber.publish(f"{topic}/a", "both")
    subscriber.publish(f"{topic}/a/b", "one")
    seen = [
        [text(message), sorted(message.properties.SubscriptionIdentifier)]
        for message in subscriber.take(2)
    ]
    subscriber.close()
    return {"got": seen}


def options(topic):
    publisher, subscriber = Peer("p"), Peer("s")
    publisher.publish(topic, "kept", retain=True)
    subscriber.subscribe(topic, retainHandling=2, retainAsPublished=True)
    publisher.publish(topic, "live", retain=True)
    subscriber.subscribe(topic, retainHandling=1, noLocal=True, retainAsPublished=True)
    subscriber.publish(topic, "own")
    publisher.publish(topic, "", retain=True)
    seen = [[text(message), message.retain] for message in subscriber.take(2)]
    for peer in (subscriber, publisher):
        peer.close()
    return {"got": seen}


for name in ERRAND["scenarios"]:
    line = {"scenario": name}
    try:
        line["seen"] = globals()[name](f"{ERRAND['prefix']}/{name}")
    except Exception:
        line["error"] = traceback.format_exc()
    print(json.dumps(line), flush=True)
