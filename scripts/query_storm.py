#!/usr/bin/env python3
"""Asks a Tollgate for telemetry, over and over, on some connections at once; prints JSON.

For bench-mixed, which gives it a process of its own so that its priority can be lower.
"""
import argparse
import http.client
import json
import pathlib
import threading
import time

import lab


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True, help="of the admin API")
    parser.add_argument("--admin-token", required=True, metavar="FILE")
    parser.add_argument("--devices", type=int, required=True, help="asked in turn")
    parser.add_argument("--lanes", type=int, default=4, help="connections [default: 4]")
    parser.add_argument("--limit", type=int, default=100, help="points a query [default: 100]")
    parser.add_argument("--seconds", type=float, default=10, help="[default: 10]")
    arguments = parser.parse_args()
    times, failures = [], []
    lanes = [threading.Thread(target=ask, args=(arguments, lane, times, failures))
             for lane in range(arguments.lanes)]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    if failures:
        lab.die(failures[0])
    print(json.dumps({"queries": len(times), "queries_per_s": len(times) / arguments.seconds,
                      "query_us": lab.percentiles(times)}))


def ask(arguments, lane, times, failures):
    token = pathlib.Path(arguments.admin_token).read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    client = http.client.HTTPConnection("127.0.0.1", arguments.port, timeout=30)
    end, number = time.monotonic() + arguments.seconds, lane
    while time.monotonic() < end:
        began = time.monotonic()
        device = f"bench-{number % arguments.devices}"
        client.request("GET", f"/admin/v1/devices/{device}/telemetry?limit={arguments.limit}",
                       headers=headers)
        reply = client.getresponse()
        said = reply.read()
        if reply.status != 200:
            failures.append(f"{device}: {reply.status} {said[:200].decode()}")
            return
        times.append((time.monotonic() - began) * 1e6)
        number += arguments.lanes


if __name__ == "__main__":
    main()
