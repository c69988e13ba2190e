"""The scenarios of `scenarios.rs` with gmqtt: what its callbacks say, one JSON line for each.

Arguments: one JSON object with port, version ("3.1.1" or "5"), token, prefix (of topics and client
ids) and scenarios (names), and for TLS ca_file. Nothing is judged here.
"""

import asyncio
import collections
import json
import ssl
import sys
import time
import traceback

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311
from gmqtt.storage import PersistentStorage

TIMEOUT_S = 60
ERRAND = json.loads(sys.argv[1])
IS_V5 = ERRAND["version"] == "5"
KEEP_S = 3600
Got = collections.namedtuple("Got", "topic payload qos properties settled")


class Peer:
    """One connection."""

    @classmethod
    async def connect(cls, name, clean=True, keep=False, will=None, manual=False, **connect):
        peer = cls()
        peer.messages, peer.acks = asyncio.Queue(), asyncio.Queue()
        peer.connack = asyncio.get_running_loop().create_future()
        peer.unacked = PersistentStorage()
        if keep and IS_V5:
            connect["session_expiry_interval"] = KEEP_S
        if will:
            topic, payload, delay = will
            more = {"will_delay_interval": delay} if delay else {}
            connect["will_message"] = gmqtt.Message(topic, payload, qos=1, **more)
        peer.client = client = gmqtt.Client(
            f"{ERRAND['prefix']}-{name}",
            clean_session=clean if IS_V5 else clean and not keep,
            optimistic_acknowledgement=not manual,
            persistent_storage=peer.unacked,
            **connect,
        )
        client.set_config({"reconnect_retries": 0})
        client.set_auth_credentials(ERRAND["token"])
        client.on_connect = lambda c, present, code, props: peer.connack.set_result(present)
        client.on_message = peer._hold if manual else peer._take
        client.on_subscribe = lambda c, mid, codes, props: peer.acks.put_nowait((mid, codes))
        client.on_unsubscribe = lambda c, mid, codes: peer.acks.put_nowait((mid, codes))
        tls = ssl.create_default_context(cafile=ERRAND["ca_file"]) if "ca_file" in ERRAND else False
        await client.connect(
            "localhost", ERRAND["port"], ssl=tls, version=MQTTv50 if IS_V5 else MQTTv311
        )
        peer.session_present = bool(await asyncio.wait_for(peer.connack, TIMEOUT_S))
        return peer

    def _take(self, client, topic, payload, qos, properties, settled=None):
        self.messages.put_nowait(Got(topic, payload.decode(), qos, properties, settled))

    async def _hold(self, client, topic, payload, qos, properties):
        """The ack follows when the message is settled."""
        settled = asyncio.get_running_loop().create_future()
        self._take(client, topic, payload, qos, properties, settled)
        return await settled

    async def subscribe(self, topic, qos=1, **options):
        await self._acked(self.client.subscribe(topic, qos, **options))

    async def unsubscribe(self, topic):
        await self._acked(self.client.unsubscribe(topic))

    async def _acked(self, request):
        mid, codes = await asyncio.wait_for(self.acks.get(), TIMEOUT_S)
        if mid != request or any(code >= 0x80 for code in codes):
            raise RuntimeError(f"not granted: {codes}")

    def send(self, topic, payload, qos=1, retain=False, **props):
        self.client.publish(topic, payload, qos=qos, retain=retain, **props)

    async def publish(self, *arguments, **keywords):
        self.send(*arguments, **keywords)
        await self.all_acked()

    async def all_acked(self):
        await asyncio.wait_for(self.unacked.wait_empty(), TIMEOUT_S)

    async def next(self):
        return await asyncio.wait_for(self.messages.get(), TIMEOUT_S)

    async def take(self, count):
        return [await self.next() for _ in range(count)]

    def drop(self):
        """Leaves without a word."""
        self.client._connection._transport.abort()

    async def close(self):
        try:
            await self.client.disconnect()
        except ssl.SSLError:
            pass  # a PUBACK crossed its close_notify; gmqtt hands that on


def texts(messages):
    return [message.payload for message in messages]


def retain_of(messages):
    return [[message.payload, bool(message.properties["retain"])] for message in messages]


async def retained(topic):
    publisher = await Peer.connect("p")
    await publisher.publish(topic, "kept", retain=True)
    first = await Peer.connect("first")
    await first.subscribe(topic)
    seen = await first.take(1)
    await publisher.publish(topic, "live", retain=True)
    await publisher.publish(topic, "", retain=True)
    seen += await first.take(2)
    second = await Peer.connect("second")
    await second.subscribe(topic)
    await publisher.publish(topic, "marker")
    shown = retain_of(seen), retain_of(await second.take(1))
    for peer in (publisher, first, second):
        await peer.close()
    return {"first": shown[0], "second": shown[1]}


async def filters(topic):
    peer = await Peer.connect("p")
    await peer.subscribe(f"{topic}/+/x")
    await peer.subscribe(f"{topic}/b/#")
    for name in ("a/y", "a/x", "b", "b/c/d"):
        await peer.publish(f"{topic}/{name}", name)
    await peer.unsubscribe(f"{topic}/b/#")
    for name in ("b/c", "c/x"):
        await peer.publish(f"{topic}/{name}", name)
    seen = texts(await peer.take(4))
    await peer.close()
    return {"got": seen}


async def will(topic):
    watcher = await Peer.connect("watcher")
    await watcher.subscribe(topic)
    (await Peer.connect("lost", will=(topic, "gone", None))).drop()
    seen = await watcher.take(1)
    await (await Peer.connect("left", will=(topic, "not this", None))).close()
    await watcher.publish(topic, "marker")
    seen += await watcher.take(1)
    await watcher.close()
    return {"got": texts(seen)}


async def will_delay(topic):
    watcher = await Peer.connect("watcher")
    await watcher.subscribe(topic)
    (await Peer.connect("back", keep=True, will=(topic, "cancelled", 3600))).drop()
    back = await Peer.connect("back", clean=False)
    await back.close()
    (await Peer.connect("anew", keep=True, will=(topic, "ended", 3600))).drop()
    await (await Peer.connect("anew")).close()
    seen = await watcher.take(1)
    before = time.monotonic()
    (await Peer.connect("late", keep=True, will=(topic, "waited", 1))).drop()
    seen += await watcher.take(1)
    waited = time.monotonic() - before
    await watcher.close()
    return {"got": texts(seen), "waited": waited >= 1}


async def shared(topic):
    everything = await Peer.connect("all")
    one, two = await Peer.connect("one"), await Peer.connect("two")
    await everything.subscribe(topic)
    for member in (one, two):
        await member.subscribe(f"$share/group/{topic}")
    numbers = [str(number) for number in range(40)]
    for number in numbers[:20]:
        await everything.publish(topic, number)
    plain = texts(await everything.take(20))
    parts = await until(
        lambda: [one.messages.qsize(), two.messages.qsize()], lambda found: sum(found) >= 20
    )
    halves = texts(await one.take(parts[0])) + texts(await two.take(parts[1]))
    one.drop()
    for number in numbers[20:]:
        await everything.publish(topic, number)
    rest = texts(await two.take(20))
    for peer in (everything, two):
        await peer.close()
    return {
        "plain": plain == numbers[:20],
        "shared": sorted(halves, key=int) == numbers[:20],
        "fair": min(parts) > 0,
        "rest": sorted(rest, key=int) == numbers[20:],
    }


async def until(look, is_right):
    deadline = time.monotonic() + TIMEOUT_S
    while not is_right(found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"still {found}")
        await asyncio.sleep(0.01)
    return found


async def session(topic):
    away = await Peer.connect("away", keep=True)
    present = [away.session_present]
    await away.subscribe(topic, 2)
    await away.close()
    publisher = await Peer.connect("p")
    for qos, payload in ((1, "one"), (1, "two"), (2, "three")):
        await publisher.publish(topic, payload, qos)
    away = await Peer.connect("away", clean=False, keep=True)
    present.append(away.session_present)
    seen = [[message.payload, message.qos] for message in await away.take(3)]
    await away.close()
    away = await Peer.connect("away")
    present.append(away.session_present)
    await publisher.publish(topic, "for nobody")
    await away.subscribe(topic)
    await publisher.publish(topic, "marker")
    anew = texts(await away.take(1))
    for peer in (away, publisher):
        await peer.close()
    return {"present": present, "got": seen, "anew": anew}


async def resend(topic):
    receiver = await Peer.connect("receiver", keep=True, manual=True)
    await receiver.subscribe(topic)
    publisher = await Peer.connect("p")
    await publisher.publish(topic, "again")
    seen = await receiver.take(1)
    receiver.drop()
    receiver = await Peer.connect("receiver", clean=False, keep=True, manual=True)
    seen += await receiver.take(1)
    seen[-1].settled.set_result(0)
    await publisher.publish(topic, "next")
    seen += await receiver.take(1)
    for peer in (receiver, publisher):
        await peer.close()
    return {"got": [[message.payload, bool(message.properties["dup"])] for message in seen]}


async def qos2(topic):
    subscriber, publisher = await Peer.connect("s"), await Peer.connect("p")
    await subscriber.subscribe(topic, 2)
    numbers = [str(number) for number in range(50)]
    for number in numbers:
        publisher.send(topic, number, 2)
    await publisher.all_acked()
    await publisher.publish(topic, "end", 2)
    seen = await subscriber.take(51)
    for peer in (subscriber, publisher):
        await peer.close()
    return {
        "in order, once": texts(seen) == numbers + ["end"],
        "qos": sorted({message.qos for message in seen}),
    }


async def alias_to(topic):
    subscriber, publisher = await Peer.connect("s"), await Peer.connect("p")
    await subscriber.subscribe(f"{topic}/#")
    await publisher.publish(f"{topic}/a", "1", topic_alias=1)
    await publisher.publish(f"{topic}/b", "2", topic_alias=2)
    await publisher.publish("", "3", topic_alias=1)
    await publisher.publish("", "4", topic_alias=2)
    await publisher.publish(f"{topic}/c", "5", topic_alias=1)
    await publisher.publish("", "6", topic_alias=1)
    seen = [[message.topic[-1], message.payload] for message in await subscriber.take(6)]
    for peer in (subscriber, publisher):
        await peer.close()
    return {"got": seen}


async def alias_from(topic):
    subscriber = await Peer.connect("s", topic_alias_maximum=2)
    publisher = await Peer.connect("p")
    await subscriber.subscribe(f"{topic}/#")
    for turn in "12":
        for name in "abc":
            await publisher.publish(f"{topic}/{name}", turn)
    seen = [[message.topic[-1], message.payload] for message in await subscriber.take(6)]
    for peer in (subscriber, publisher):
        await peer.close()
    return {"got": seen}


async def flow_in(topic):
    subscriber = await Peer.connect("s", manual=True, receive_maximum=3)
    everything = await Peer.connect("all")
    await subscriber.subscribe(topic)
    await everything.subscribe(topic)
    for number in range(10):
        await everything.publish(topic, str(number))
    await everything.take(10)
    held = await subscriber.take(3)
    await subscriber.subscribe(f"{topic}/marker")
    more = subscriber.messages.qsize()
    for message in held:
        message.settled.set_result(0)
    for _ in range(7):
        held.append(await subscriber.next())
        held[-1].settled.set_result(0)
    for peer in (subscriber, everything):
        await peer.close()
    return {"beyond 3": more, "got": [int(payload) for payload in texts(held)]}


async def flow_out(topic):
    subscriber, publisher = await Peer.connect("s"), await Peer.connect("p")
    await subscriber.subscribe(topic, 2)
    for number in range(300):
        while True:
            try:
                publisher.send(topic, str(number), 1 + number % 2)
                break
            except OverflowError:  # the broker's Receive Maximum
                await publisher.all_acked()
    await publisher.all_acked()
    seen = sorted(int(payload) for payload in texts(await subscriber.take(300)))
    for peer in (subscriber, publisher):
        await peer.close()
    return {"all": seen == list(range(300))}


async def request(topic):
    server, asker = await Peer.connect("server"), await Peer.connect("asker")
    await server.subscribe(f"{topic}/ask")
    await asker.subscribe(f"{topic}/answer")
    await asker.publish(
        f"{topic}/ask", "ping", response_topic=f"{topic}/answer", correlation_data=b"c-1",
        user_property=[("a", "1"), ("a", "2")], content_type="text/plain",
        payload_format_id=1, message_expiry_interval=100,
    )
    asked = (await server.next()).properties
    await server.publish(
        asked["response_topic"][0], "pong", correlation_data=asked["correlation_data"][0]
    )
    answer = await asker.next()
    for peer in (server, asker):
        await peer.close()
    return {
        "user": [list(pair) for pair in asked["user_property"]],
        "type": asked["content_type"][0],
        "format": asked["payload_format_id"][0],
        "expiry": 0 < asked["message_expiry_interval"][0] <= 100,
        "answer": answer.payload,
        "correlation": answer.properties["correlation_data"][0].decode(),
    }


async def identifiers(topic):
    subscriber = await Peer.connect("s")
    await subscriber.subscribe(f"{topic}/#", subscription_identifier=1)
    await subscriber.subscribe(f"{topic}/+", subscription_identifier=268435455)
    await subscriber.publish(f"{topic}/a", "both")
    await subscriber.publish(f"{topic}/a/b", "one")
    seen = [
        [message.payload, sorted(message.properties["subscription_identifier"])]
        for message in await subscriber.take(2)
    ]
    await subscriber.close()
    return {"got": seen}


async def options(topic):
    publisher, subscriber = await Peer.connect("p"), await Peer.connect("s")
    await publisher.publish(topic, "kept", retain=True)
    await subscriber.subscribe(topic, retain_handling_options=2, retain_as_published=True)
    await publisher.publish(topic, "live", retain=True)
    await subscriber.subscribe(
        topic, retain_handling_options=1, no_local=True, retain_as_published=True
    )
    await subscriber.publish(topic, "own")
    await publisher.publish(topic, "", retain=True)
    seen = retain_of(await subscriber.take(2))
    for peer in (subscriber, publisher):
        await peer.close()
    return {"got": seen}


async def main():
    for name in ERRAND["scenarios"]:
        line = {"scenario": name}
        try:
            line["seen"] = await globals()[name](f"{ERRAND['prefix']}/{name}")
        except Exception:
            line["error"] = traceback.format_exc()
        print(json.dumps(line), flush=True)


asyncio.run(main())
