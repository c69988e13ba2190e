"""An application that takes its feed and writes down each number before it acknowledges it.

    paho_feed.py HOST PORT TOKEN CLIENT_ID FILTER FILE
"""

import json
import sys

import paho.mqtt.client as mqtt


def main():
    host, port, token, client_id, wanted, path = sys.argv[1:]
    seen = open(path, "a", buffering=1)
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        client_id=client_id,
        clean_session=False,
        protocol=mqtt.MQTTv311,
        manual_ack=True,
    )
    client.username_pw_set(token)

    def on_connect(client, userdata, flags, reason, properties):
        client.subscribe(wanted, qos=1)

    def on_subscribe(client, userdata, mid, reasons, properties):
        print("subscribed", flush=True)

    def on_message(client, userdata, message):
        seen.write(f"{json.loads(message.payload)['n']}\n")
        client.ack(message.mid, message.qos)

    client.on_connect = on_connect
    client.on_subscribe = on_subscribe
    client.on_message = on_message
    client.connect(host, int(port))
    client.loop_forever()


main()
