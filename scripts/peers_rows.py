"""The loads of bench-peers, and the rows of its table: a cost each, beside what is to be reached.

A cost is CPU time of the broker per message, delivery or connection in µs, or memory in KiB or MiB.
"""
import dataclasses
import statistics
from collections.abc import Callable

TOLLGATES = ["before", "tollgate"]  # the other build, and this one
NAMES = ["raw", "mosquitto", "nats", *TOLLGATES]

INGEST = {
    "w1": ("QoS 1, window 1, 1,000 connections",
           ["--qos", "1", "--window", "1", "--connections", "1000"]),
    "w32": ("QoS 1, window 32, 100 connections",
            ["--qos", "1", "--window", "32", "--connections", "100"]),
    "qos0": ("QoS 0, 100 connections", ["--qos", "0", "--connections", "100"]),
    "paced": ("QoS 1, 10,000/s paced over 1,000 connections",
              ["--qos", "1", "--rate", "10000", "--connections", "1000"]),
    "tls": ("QoS 1, window 1, 100 connections, TLS",
            ["--qos", "1", "--window", "1", "--connections", "100"]),
    "flood": ("QoS 0, 1,000 connections", ["--qos", "0", "--connections", "1000"]),
}
# All clients are one application. At QoS 0 the window is what is not delivered.
FAN = {
    "fan100": ("1 to 100, QoS 0, window 100",
               ["--publishers", "1", "--subscribers", "100", "--qos", "0", "--window", "100"]),
    "fan100-qos1": ("1 to 100, QoS 1, window 32",
                    ["--publishers", "1", "--subscribers", "100", "--qos", "1", "--window", "32"]),
    "fan1000": ("10 to 1,000, QoS 0, window 10",
                ["--publishers", "10", "--subscribers", "1000", "--qos", "0", "--window", "10"]),
    "in100": ("100 to 1, QoS 1, window 1",
              ["--publishers", "100", "--subscribers", "1", "--qos", "1", "--window", "1"]),
    "in100-w32": ("100 to 1, QoS 1, window 32",
                  ["--publishers", "100", "--subscribers", "1", "--qos", "1", "--window", "32"]),
    "fan100-paced": ("1 to 100, QoS 0, 200/s, one by one",
                     ["--publishers", "1", "--subscribers", "100", "--qos", "0", "--rate", "200"]),
    "fan100-kept": ("1 to 100, QoS 1, window 32, kept sessions",
                    ["--publishers", "1", "--subscribers", "100", "--qos", "1", "--window", "32",
                     "--kept"]),
}
# Telemetry of devices that an application is fed: on disk before the ack, by NATS too.
NATS = {
    "nats": ("100 devices to 1 application, QoS 1, window 1, synced",
             ["--publishers", "100", "--subscribers", "1", "--qos", "1", "--window", "1",
              "--publish-topic", "v1/devices/me/telemetry",
              "--subscribe-filter", "v1/devices/+/telemetry"]),
}
# So many microseconds longer takes each sync of the journal, as on other disks. No peer stores
# anything here, so there is nothing to compare with.
SYNC_DELAY_US = {"sync2": 2000, "sync10": 10000}
SYNC = {
    f"{name}{more}": (f"{delay // 1000} ms added to a sync, 1,000 connections, {title}",
                      ["--connections", "1000", *flags])
    for name, delay, rate in [("sync2", 2000, 110000), ("sync10", 10000, 44000)]
    for more, title, flags in [
        ("", f"{rate:,}/s, 4 at a time", ["--rate", str(rate), "--together", "4"]),
        ("-w1", "window 1", ["--window", "1"]),
        ("-w32", "window 32", ["--window", "32"])]
}
CONNECT = {
    "connect": ("open, CONNECT, CONNACK, close", []),
    "connect-tls": ("the same over TLS, full handshake", []),
}
IDLE = {"idle": ("plain", []), "idle-tls": ("TLS", [])}
LOADS = {**INGEST, **SYNC, **FAN, **CONNECT, **IDLE, **NATS}


def cpu(result, key="cpu_us_per_message"):
    return result[key]


def cpu_without_store(result, key="cpu_us_per_message"):
    return cpu(result, key) - result[f"{key}_by_thread"].get("store", 0)


def idle_kib(result):
    return result["rss_kib_per_connection"]


def rss_mib(result):
    return result["rss_kib"] / 1024


def rate(result):
    return result["messages_per_s"]


def rss_mib_without_head(result):
    return rss_mib(result) - result.get("head_bytes", 0) / (1 << 20)


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table. Goals are the most that each may be: the ratio to the peer and to the
    sink, and Tollgate's own value in `unit`; None where nothing is asked for."""
    title: str
    load: str
    unit: str = "µs"
    value: Callable = cpu  # of a peer's run
    own: Callable = cpu_without_store  # of Tollgate's run
    to_peer: float | None = None
    to_raw: float | None = None
    most: float | None = None
    least: float | None = None  # of Tollgate's own value
    p50_ms: float | None = None
    p99_ms: float | None = None
    p99_commits: float | None = None
    rate: float | None = None  # the least that Tollgate's rate may be of the peer's
    peer: str = "mosquitto"


ROWS = {
    "w1": Row("QoS 1, window 1, 1,000 connections", "w1", to_peer=0.6, to_raw=1.3),
    "w32": Row("QoS 1, window 32, 100 connections", "w32", to_peer=0.10),
    "w32-history": Row("the same with history, caught up", "w32", own=cpu, to_peer=0.33),
    "paced": Row("QoS 1, 10,000/s over 1,000 connections", "paced", to_peer=1.05, to_raw=1.4,
                 p50_ms=1, p99_ms=2),
    "qos0": Row("QoS 0, 100 connections, unpaced", "qos0", to_peer=0.16),
    "tls": Row("TLS 1.3, QoS 1, window 1, 100 connections", "tls", to_peer=0.56),
    "fan100": Row("fan-out 1 to 100, QoS 0, a delivery", "fan100", to_peer=0.10),
    "fan100-qos1": Row("fan-out 1 to 100, QoS 1, a delivery", "fan100-qos1", to_peer=0.12),
    "fan1000": Row("fan-out 10 to 1,000, QoS 0, a delivery", "fan1000", to_peer=0.07),
    "in100": Row("fan-in 100 to 1, QoS 1, window 1, a delivery", "in100", to_peer=0.20),
    "in100-w32": Row("the same with window 32", "in100-w32", to_peer=0.20),
    "connect": Row("CONNECT to CONNACK, plain", "connect", own=cpu, to_peer=0.38),
    "connect-tls": Row("CONNECT to CONNACK, TLS 1.3, full handshake", "connect-tls", own=cpu,
                       to_peer=0.46),
    "idle": Row("idle connection, plain", "idle", "KiB", idle_kib, idle_kib, most=2),
    "idle-tls": Row("idle connection, TLS", "idle-tls", "KiB", idle_kib, idle_kib, most=10),
    "flood": Row("RSS after a QoS 0 flood, 1,000 connections, without the history's head",
                 "flood", "MiB", rss_mib, rss_mib_without_head, most=24),
    "nats": Row("QoS 1, window 1, 100 to 1, synced before the ack, a delivery", "nats",
                to_peer=0.2, p99_ms=5, rate=10, peer="nats"),
    "sync2": Row("QoS 1, 2 ms added to a sync, 1,000 connections, 4 at a time", "sync2", "/s",
                 rate, rate, least=100_000, p99_commits=3),
    "sync10": Row("QoS 1, 10 ms added to a sync, 1,000 connections, 4 at a time", "sync10", "/s",
                  rate, rate, least=40_000, p99_commits=3),
    "sync10-w1": Row("the same, window 1", "sync10-w1", "/s", rate, rate, least=40_000,
                     p99_commits=3),
}


def findings(runs, names):
    """What came out of the runs, (load, broker) -> results, for each of these rows."""
    return [finding(name, ROWS[name], runs) for name in names
            if (ROWS[name].load, "tollgate") in runs]


def finding(name, row, runs):
    """One row: values of all brokers, ratios beside the goals, and what is missed. A ratio is the
    median of the ratios of each round, whose runs are close in time."""
    own = [row.own(result) for result in runs[row.load, "tollgate"]]
    found = {"row": name, "title": row.title, "unit": row.unit, "tollgate": spread(own),
             "peer_name": row.peer}
    for key, broker, goal in [("peer", row.peer, row.to_peer), ("raw", "raw", row.to_raw)]:
        values = [row.value(result) for result in runs.get((row.load, broker), [])]
        found[key] = spread(values) if values else None
        ratios = [mine / other for mine, other in zip(own, values) if other > 0]
        found[f"to_{key}"] = spread(ratios) if ratios else None
        found[f"to_{key}_goal"] = goal
    found |= {"goal": row.most, "least_goal": row.least, "p99_commits_goal": row.p99_commits,
              "p50_goal_ms": row.p50_ms, "p99_goal_ms": row.p99_ms,
              "rate_goal": row.rate}
    waits = [wait for wait in map(waiting, runs[row.load, "tollgate"]) if wait]
    for key in ["p50", "p99"]:
        found[f"{key}_us"] = statistics.median(wait[key] for wait in waits) if waits else None
    commits = [wait["p99"] / result["commit_us"]
               for result, wait in zip(runs[row.load, "tollgate"], waits) if "commit_us" in result]
    floor = [wait["p99"] for wait in map(waiting, runs.get((row.load, "raw"), [])) if wait]
    found["raw_p99_us"] = statistics.median(floor) if floor else None
    found["p99_commits"] = statistics.median(commits) if commits else None
    found["rate"] = rate_ratio(row, runs)
    found["missed"] = missed(found)
    return found


def missed(found):
    """The goals that were not reached; one without a figure is neither reached nor missed."""
    def median(key):
        return found[key] and found[key]["median"]

    asked = [("× peer", median("to_peer"), found["to_peer_goal"]),
             ("× raw", median("to_raw"), found["to_raw_goal"]),
             ("value", median("tollgate"), found["goal"]),
             ("commits", found["p99_commits"], found["p99_commits_goal"])]
    for key in ["p50", "p99"]:
        limit_ms = found[f"{key}_goal_ms"]
        asked.append((key, found[f"{key}_us"], limit_ms and limit_ms * 1000))
    over = [what for what, value, most in asked if value and most and value > most]
    if found["least_goal"] and median("tollgate") < found["least_goal"]:
        over.append("value")
    is_slow = found["rate"] and found["rate_goal"] and found["rate"] < found["rate_goal"]
    return over + (["rate"] if is_slow else [])


def rate_ratio(row, runs):
    """Messages a second beside the peer's, where that is asked for."""
    if row.rate is None:
        return None
    rounds = zip(runs[row.load, "tollgate"], runs.get((row.load, row.peer), []))
    ratios = [mine["messages_per_s"] / other["messages_per_s"] for mine, other in rounds]
    return statistics.median(ratios) if ratios else None


def waiting(result):
    """How long clients waited, by what they wait for."""
    return result.get("ack_us") or result.get("connack_us") or result.get("delivery_us")


def spread(values):
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def table(found):
    """The rows in Markdown."""
    yield ("| load | unit | raw | peer | Tollgate (least) | × peer | goal | × raw | goal |"
           " p50, p99, ms | missed |")
    yield "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|"
    for row in found:
        name = "" if row["peer_name"] == "mosquitto" else f" {row['peer_name']}"
        own = row["tollgate"]
        cells = [row["title"], row["unit"], value(row["raw"]), value(row["peer"]) + name,
                 f"{digits(own['median'])} ({digits(own['least'])})"]
        cells += [ratio(row["to_peer"]), goal(row["to_peer_goal"] or row["goal"], row)]
        if row["least_goal"]:
            cells[-1] = f"from {row['least_goal']:,}"
        cells += [ratio(row["to_raw"]), goal(row["to_raw_goal"], row), waits(row)]
        cells += [", ".join(row["missed"]) or "-"]
        yield f"| {' | '.join(cells)} |"


def waits(row):
    if row["p50_us"] is None:
        return "-"
    both = f"{row['p50_us'] / 1000:.2f}, {row['p99_us'] / 1000:.2f}"
    if row["p99_goal_ms"] and row["raw_p99_us"]:
        both += f" (raw p99 {row['raw_p99_us'] / 1000:.2f})"
    if row["p99_commits_goal"]:
        both += f" ({row['p99_commits']:.1f} commits, goal {row['p99_commits_goal']})"
    return both


def value(found):
    return digits(found["median"]) if found else "-"


def ratio(found):
    return f"{found['median']:.2f}" if found else "-"


def goal(number, row):
    if number is None:
        return "-"
    unit = f" {row['unit']}" if number == row["goal"] else ""
    return f"{number:g}{unit}"


def digits(number):
    """Three of them, or all before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
