"""The series of bench-scale: each measures its points, prints them, and answers them.

A point is what was measured at one size `x`: CPU in µs, times in µs, ms or s, memory in KiB or MiB,
as the names end. Medians of the rounds, and the least where the name says so.
"""
import contextlib
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time

import lab
import wire

WINDOW_BYTES = 8  # messages in flight of a connection where the payload grows
JOURNAL_PAYLOAD = '{"temperature":2{random},"pressure":1{random},"text":"%s"}' % ("x" * 200)
SAMPLE_TOKENS = 1_000  # of all tokens, spread over them: who connects
IMPORT_ROWS = 1_000_000  # of one import
HOLDERS = 100  # connections that hold the subscriptions
FILTERS_A_PACKET = 100
GIB = 1 << 30
FILL_LIMIT_S = 1_800  # to fill the journal up to one size


def connections(folder, arguments):
    """A message at window 1 over more and more connections, and what an idle one takes."""
    most = max(arguments.connections)
    with contextlib.ExitStack() as stack:
        broker, sink = started(stack, folder, arguments), started_raw(stack, arguments)
        lab.create_devices(broker, folder, most)
        lab.write_tokens(folder / "tokens", most)
        points = []
        for count in arguments.connections:
            flags = ["--window", "1", "--connections", str(count)]
            point = {"x": count, **messages(broker, sink, folder, arguments, flags)}
            broker.stop()  # memory that is free already would hide what the idle ones take
            broker.start()
            lab.wait_until_at_rest(broker)
            idle = bench(broker, folder, arguments, "idle", ["--connections", str(count),
                                                             "--seconds", "1"])
            point["idle_kib"] = idle["rss_kib_per_connection"]
            points.append(told("connections", point))
        return points


def payloads(folder, arguments):
    """Larger and larger messages, many under way."""
    with contextlib.ExitStack() as stack:
        broker, sink = started(stack, folder, arguments), started_raw(stack, arguments)
        lab.create_devices(broker, folder, 100)
        lab.write_tokens(folder / "tokens", 100)
        points = []
        for size in arguments.payloads:
            flags = ["--window", str(WINDOW_BYTES), "--connections", "100",
                     "--payload-bytes", str(size)]
            point = {"x": size, **messages(broker, sink, folder, arguments, flags)}
            point["cpu_us_per_kib"] = point["cpu_us"] / (size / 1024)
            point["cpu_us_with_history_per_kib"] = point["cpu_us_with_history"] / (size / 1024)
            points.append(told("payloads", point))
        return points


def messages(broker, sink, folder, arguments, flags):
    """The same load on the sink and on the broker in turn."""
    own, floor = [], []
    for _ in range(arguments.rounds):
        floor.append(bench(sink, folder, arguments, "ingest", flags))
        ledger = ["--ledger-url", f"http://127.0.0.1:{broker.http_port}/metrics"]
        own.append(bench(broker, folder, arguments, "ingest", flags + ledger))
    without = [one["cpu_us_per_message"] - one["cpu_us_per_message_by_thread"].get("store", 0)
               for one in own]
    raw = [one["cpu_us_per_message"] for one in floor]
    return {
        "cpu_us": statistics.median(without), "cpu_us_least": min(without),
        "cpu_us_with_history": statistics.median(one["cpu_us_per_message"] for one in own),
        "raw_cpu_us": statistics.median(raw), "raw_cpu_us_least": min(raw),
        "to_raw": statistics.median(one / other for one, other in zip(without, raw)),
        "messages_per_s": statistics.median(one["messages_per_s"] for one in own),
        "ack_p50_ms": statistics.median(one["ack_us"]["p50"] for one in own) / 1000,
        "ack_p99_ms": statistics.median(one["ack_us"]["p99"] for one in own) / 1000,
    }


def tokens(folder, arguments):
    """Larger and larger registries: import, start, memory, and who connects."""
    points = []
    for count in arguments.tokens:
        home = folder / f"tokens-{count}"
        home.mkdir()
        with contextlib.ExitStack() as stack:
            broker = started(stack, home, arguments)
            lab.wait_until_at_rest(broker)
            empty_kib = lab.rss_kib(broker.pid)
            point = {"x": count, "import_s": import_tokens(broker, home, arguments, count)}
            starts = []
            for _ in range(arguments.rounds):
                broker.stop()
                starts.append(start_until_ready(broker))
            point["start_s"] = statistics.median(starts)
            lab.wait_until_at_rest(broker)
            point["rss_mib"] = (lab.rss_kib(broker.pid) - empty_kib) / 1024
            point |= connects(broker, home, arguments, count)
        if arguments.lookups:
            point |= look_up(count)
        points.append(told("tokens", point))
        subprocess.run(["rm", "-rf", home], check=True)
    return points


def import_tokens(broker, home, arguments, count):
    """By the command that people use; seconds of it."""
    took = 0
    address = f"http://127.0.0.1:{broker.http_port}"
    environment = dict(broker.environment, TOLLGATE_ADMIN_URL=address)
    for start in range(0, count, IMPORT_ROWS):
        rows = (f"meter-{number:08},{scale_token(number)}\n"
                for number in range(start, min(count, start + IMPORT_ROWS)))
        with open(home / "fleet.csv", "w", encoding="utf-8") as out:
            out.write("name,token\n")
            out.writelines(rows)
        began = time.monotonic()
        subprocess.run([arguments.tollgate, "device", "import", home / "fleet.csv"], check=True,
                       stdout=subprocess.DEVNULL, env=environment)
        took += time.monotonic() - began
    (home / "fleet.csv").unlink()
    return took


def scale_token(number):
    return f"token-of-the-meter-number-{number:08}"


def connects(broker, home, arguments, count):
    """Clients all over the registry that come and go, as fast as they are taken."""
    wanted = min(count, SAMPLE_TOKENS)
    # A step that meets every number once, in no order that a cache would like.
    numbers = (at * 611_953 % count for at in range(wanted))
    (home / "tokens").write_text("".join(scale_token(number) + "\n" for number in numbers))
    found = [bench(broker, home, arguments, "connect", ["--in-progress", "32"])
             for _ in range(arguments.rounds)]
    cost = [one["cpu_us_per_message"] for one in found]
    return {"connect_cpu_us": statistics.median(cost), "connect_cpu_us_least": min(cost),
            "connack_p50_ms": statistics.median(o["connack_us"]["p50"] for o in found) / 1000,
            "connack_p99_ms": statistics.median(o["connack_us"]["p99"] for o in found) / 1000}


def look_up(count):
    """The index by itself, by a test that is not run otherwise."""
    command = ["cargo", "test", "--release", "--locked", "--quiet", "--lib", "a_million_tokens",
               "--", "--ignored", "--nocapture"]
    done = subprocess.run(command, env=dict(os.environ, TOLLGATE_TEST_DEVICES=str(count)),
                          capture_output=True, text=True, check=True)
    digest, found, missed = re.search(
        r"digest (\d+) ns, lookup (\d+) ns, of a wrong one (\d+) ns", done.stdout).groups()
    return {"digest_ns": int(digest), "lookup_ns": int(found), "lookup_wrong_ns": int(missed)}


def subscriptions(folder, arguments):
    """A message to one subscriber among more and more subscriptions that do not match it."""
    settings = {"TOLLGATE_LIMITS_CONNECTIONS_PER_IDENTITY_MAX": "2000",
                "TOLLGATE_LIMITS_SESSIONS_PER_IDENTITY_MAX": "2000",
                "TOLLGATE_LIMITS_SUBSCRIPTIONS_PER_SESSION_MAX": "10000"}
    most = max(arguments.subscriptions)
    if most > HOLDERS * 10_000:
        lab.die(f"--subscriptions: at most {HOLDERS * 10_000:,}")
    with contextlib.ExitStack() as stack:
        broker = started(stack, folder, arguments, settings)
        lab.create_apps(broker, folder)
        lab.wait_until_at_rest(broker)
        empty_kib, held, points = lab.rss_kib(broker.pid), 0, []
        holders = [stack.enter_context(holder(broker, number)) for number in range(HOLDERS)]
        for count in arguments.subscriptions:
            began = time.monotonic()
            hold(holders, held, count)
            took, held = time.monotonic() - began, count
            grown_kib = lab.rss_kib(broker.pid) - empty_kib
            flags = ["--publishers", "1", "--subscribers", "1", "--qos", "0", "--window", "100",
                     "--publish-topic", "bench/fleet/probe/cmd", "--subscribe-filter",
                     "bench/fleet/probe/cmd", "--token", lab.APP_TOKEN]
            found = [bench(broker, folder, arguments, "fanout", flags)
                     for _ in range(arguments.rounds)]
            cost = [one["cpu_us_per_message"] for one in found]
            points.append(told("subscriptions", {
                "x": count, "cpu_us": statistics.median(cost), "cpu_us_least": min(cost),
                "subscribe_s": took, "rss_mib": grown_kib / 1024,
                "filter_mib": lab.metric(broker, "tollgate_filter_bytes") / (1 << 20)}))
        return points


def holder(broker, number):
    client = wire.Client(broker.port)
    if client.open(f"holder-{number}", lab.APP_TOKEN, keep_alive_s=0) != wire.ACCEPTED:
        lab.die("a client that is to hold subscriptions is refused")
    return client


def hold(holders, begin, end):
    """Subscribes so that there are `end` subscriptions; `begin` are there. One of two has a +."""
    def filter_of(number):
        return f"bench/fleet/{number:08}/" + ("+/mode" if number % 2 else "cmd")

    for start in range(begin, end, FILTERS_A_PACKET):
        filters = list(map(filter_of, range(start, min(end, start + FILTERS_A_PACKET))))
        client = holders[start // FILTERS_A_PACKET % len(holders)]
        client.send(wire.subscribe(filters))
        codes = client.expect(wire.SUBACK)[2:]
        if codes != b"\x01" * len(filters):
            lab.die(f"a subscription is refused: SUBACK with {max(codes):#04x}")


def journal(folder, arguments):
    """A longer and longer journal: a start behind kill -9, and queries. By itself it is as long as
    `feed.keep_size_bytes` says (1 GiB by default), and what the history has not read."""
    keep = int((max(arguments.journal_gib) + 1) * GIB)
    with contextlib.ExitStack() as stack:
        broker = started(stack, folder, arguments, {
            "TOLLGATE_FEED_KEEP_SIZE_BYTES": str(keep),
            "TOLLGATE_LIMITS_HTTP_REQUESTS_PER_SECOND_MAX": "1000000"})
        lab.create_devices(broker, folder, 100)
        lab.write_tokens(folder / "tokens", 100)
        empty = lab.metric(broker, "tollgate_journal_bytes")
        points = []
        for size in arguments.journal_gib:
            fill(broker, folder, arguments, empty + size * GIB)
            broker.process.kill()
            broker.process.wait()
            began = time.monotonic()
            point = {"x": size, "start_s": start_until_ready(broker)}
            point["first_query_ms"] = query(broker, folder)
            lab.wait_until_at_rest(broker)
            point["at_rest_s"] = time.monotonic() - began
            times = [query(broker, folder) for _ in range(50)]
            point |= {"query_ms": statistics.median(times), "query_ms_most": max(times),
                      "rss_mib": lab.rss_kib(broker.pid) / 1024,
                      "records": lab.metric(broker, "tollgate_journal_durable_offset")}
            points.append(told("journal", point))
        return points


def fill(broker, folder, arguments, wanted):
    end = time.monotonic() + FILL_LIMIT_S
    while lab.metric(broker, "tollgate_journal_bytes") < wanted:
        if time.monotonic() > end:
            lab.die("the journal does not grow: it is let go, or too slow")
        bench(broker, folder, arguments, "ingest", ["--window", "32", "--connections", "100",
                                                    "--payload", JOURNAL_PAYLOAD])


def query(broker, folder):
    """The newest 1,000 points of a device; milliseconds."""
    admin = (folder / "secrets/admin.token").read_text().strip()
    client = http.client.HTTPConnection("127.0.0.1", broker.http_port, timeout=60)
    with contextlib.closing(client):
        began = time.monotonic()
        client.request("GET", "/admin/v1/devices/bench-7/telemetry?limit=1000",
                       headers={"Authorization": f"Bearer {admin}"})
        reply = client.getresponse()
        said = reply.read()
    if reply.status != 200:
        lab.die(f"a query: {reply.status} {said.decode()}")
    return (time.monotonic() - began) * 1000


def started(stack, folder, arguments, settings=None):
    broker = lab.tollgate(arguments.tollgate, folder, on_core_0, settings)
    stack.callback(broker.stop)
    return broker.start()


def started_raw(stack, arguments):
    sink = lab.raw(arguments.tollgate, on_core_0)
    stack.callback(sink.stop)
    return sink.start()


def on_core_0(command):
    return lab.pinned(0, command)


def start_until_ready(broker):
    """Seconds until the broker says that it serves."""
    began, said = time.monotonic(), []
    broker.process = subprocess.Popen(broker.command, env=broker.environment, text=True,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for line in broker.process.stdout:
        if line == "ready\n":
            # What it says from now on is read too, or it would wait for a reader.
            threading.Thread(target=broker.process.stdout.read, daemon=True).start()
            return time.monotonic() - began
        said.append(line)
    lab.die(f"the broker does not start: {''.join(said[-5:])}")


def bench(broker, folder, arguments, kind, flags):
    """One run of the generator."""
    command = [arguments.tollgate, "bench", kind, "--json", "--port", str(broker.port),
               "--broker-pid", str(broker.pid), *flags]
    if "--token" not in flags:
        command += ["--tokens", folder / "tokens"]
    if "--seconds" not in flags:
        command += ["--seconds", str(arguments.seconds)]
    done = subprocess.run(lab.pinned(1, command), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lab.die(f"{' '.join(map(str, command))}: {done.stderr}{done.stdout}")
    return json.loads(done.stdout)


def told(series, point):
    """The same point, each figure with four digits, after it was printed."""
    point = {key: float(f"{value:.4g}") if isinstance(value, float) else value
             for key, value in point.items()}
    print(f"{series}: {json.dumps(point)}", file=sys.stderr, flush=True)
    return point
