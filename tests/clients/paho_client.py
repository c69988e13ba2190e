"""One errand with paho-mqtt, printing what its callbacks tell the user.

Arguments: one JSON object with port, version ("3.1", "3.1.1" or "5") and messages (a list of
[qos, payload]), and optionally token, password, client_id, ca_file, certificate,
key and web.
"""

import json
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

VERSIONS = {
    "3.1": MQTTProtocolVersion.MQTTv31,
    "3.1.1": MQTTProtocolVersion.MQTTv311,
    "5": MQTTProtocolVersion.MQTTv5,
}
TIMEOUT_S = 20

errand = json.loads(sys.argv[1])
connected = threading.Event()
disconnected = threading.Event()
published = threading.Semaphore(0)


def on_connect(client, userdata, flags, reason_code, properties):
    print("connect:", reason_code)
    if reason_code.is_failure:
        client.disconnect()
    else:
        connected.set()


def on_publish(client, userdata, mid, reason_code, properties):
    print("publish:", reason_code)
    published.release()


def on_disconnect(client, userdata, flags, reason_code, properties):
    # paho reconnects by itself; an errand ends with its connection.
    print("disconnect:", reason_code)
    client.disconnect()
    disconnected.set()
    connected.set()
    published.release()


client = mqtt.Client(
    CallbackAPIVersion.VERSION2,
    client_id=errand.get("client_id", ""),
    protocol=VERSIONS[errand["version"]],
    transport="websockets" if errand.get("web") else "tcp",  # at the path /mqtt
)
client.on_connect = on_connect
client.on_publish = on_publish
client.on_disconnect = on_disconnect
if "token" in errand:
    client.username_pw_set(errand["token"], errand.get("password"))
if "ca_file" in errand:
    client.tls_set(errand["ca_file"], errand.get("certificate"), errand.get("key"))
client.connect("localhost", errand["port"])
client.loop_start()
if not connected.wait(TIMEOUT_S):
    sys.exit("no CONNACK and no close in time")
for qos, payload in errand["messages"]:
    if disconnected.is_set():
        break
    client.publish("v1/devices/me/telemetry", payload, qos)
    if not published.acquire(timeout=TIMEOUT_S):
        sys.exit("neither published nor disconnected in time")
if errand.get("wait_for_close") and not disconnected.wait(TIMEOUT_S):
    sys.exit("not disconnected in time")
if not disconnected.is_set():
    client.disconnect()
    if not disconnected.wait(TIMEOUT_S):
        sys.exit("no end in time")
client.loop_stop()
