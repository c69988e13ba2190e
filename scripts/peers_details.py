"""More of what came out of bench-peers: rates, latencies and user time of every broker."""
import statistics

from peers_rows import (CONNECT, FAN, IDLE, INGEST, LOADS, NAMES, NATS, SYNC, TOLLGATES, cpu,
                        cpu_without_store)



def tables(runs):
    """A table for each kind of load."""
    loads = {load for load, _ in runs}
    for table, kind in [(ingest_table, {**INGEST, **SYNC}), (fan_table, {**FAN, **NATS}),
                        (connect_table, CONNECT), (idle_table, IDLE)]:
        found = [load for load in kind if load in loads]
        if found:
            yield from table(runs, found)


def ingest_table(runs, loads):
    yield ("| load | broker | messages/s | ack p50, µs | ack p99, µs |"
           " CPU per message, µs (least) | user | × raw | × mosquitto |")
    yield "|---|---|---:|---:|---:|---:|---:|---:|---:|"
    for load in loads:
        rows = [("raw", cpu, "raw"), ("mosquitto", cpu, "mosquitto")]
        for name in TOLLGATES:
            rows += [(name, cpu_without_store, name), (f"{name} with history", cpu, name)]
        for title, cost, name in rows:
            results = runs.get((load, name))
            if not results:
                continue
            acks = [result["ack_us"] for result in results if result["ack_us"]]
            costs = [cost(result) for result in results]
            users = [cost(result, "cpu_user_us_per_message") for result in results]
            rate = median(result["messages_per_s"] for result in results)
            cells = [LOADS[load][0], title, f"{rate:,.0f}"]
            cells += [f"{median(ack[key] for ack in acks):,.0f}" if acks else "-"
                      for key in ["p50", "p99"]]
            cells += [f"{median(costs):.3f} ({min(costs):.3f})", f"{median(users):.3f}"]
            cells += [ratio(runs, load, name, cost, peer) for peer in ["raw", "mosquitto"]]
            yield f"| {' | '.join(cells)} |"
    yield from ["", "Tollgate's CPU per message by thread, µs:", "",
                "| load | broker | net | journal | store | http, state, other |",
                "|---|---|---:|---:|---:|---:|"]
    for load in loads:
        for name in [name for name in TOLLGATES if (load, name) in runs]:
            yield f"| {LOADS[load][0]} | {name} | {' | '.join(by_thread(runs[load, name]))} |"
    yield ""


def fan_table(runs, loads):
    yield ("| load | broker | deliveries/s | delivered | delivery p50, µs | p99, µs |"
           " CPU per delivery, µs (least) | user | × peer (least, most) |")
    yield "|---|---|---:|---:|---:|---:|---:|---:|---:|"
    for load in loads:
        for name in NAMES:
            results = runs.get((load, name))
            if not results:
                continue
            costs = [cpu(result) for result in results]
            users = [cpu(result, "cpu_user_us_per_message") for result in results]
            share = min(result["delivered"] / result["expected"] for result in results)
            cells = [LOADS[load][0], name,
                     f"{median(r['deliveries_per_s'] for r in results):,.0f}",
                     f"{100 * share:.3g} %"]
            cells += [f"{median(r['delivery_us'][key] for r in results):,.0f}"
                      for key in ["p50", "p99"]]
            cells += [f"{median(costs):.3f} ({min(costs):.3f})", f"{median(users):.3f}"]
            found = ratios(runs, load, name, cpu, "nats" if load in NATS else "mosquitto")
            cells += [f"{median(found):.2f} ({min(found):.2f}, {max(found):.2f})"]
            yield f"| {' | '.join(cells)} |"
    yield ""


def connect_table(runs, loads):
    yield "| load | broker | connections/s | CONNACK p50, µs | p99, µs | CPU each, µs (least) |"
    yield "|---|---|---:|---:|---:|---:|"
    for load in loads:
        for name in NAMES:
            results = runs.get((load, name))
            if not results:
                continue
            costs = [cpu(result) for result in results]
            cells = [LOADS[load][0], name,
                     f"{median(r['connections_per_s'] for r in results):,.0f}"]
            cells += [f"{median(r['connack_us'][key] for r in results):,.0f}"
                      for key in ["p50", "p99"]]
            cells += [f"{median(costs):.1f} ({min(costs):.1f})"]
            yield f"| {' | '.join(cells)} |"
    yield ""


def idle_table(runs, loads):
    yield "| idle connections | broker | how many | RSS each, KiB (least) |"
    yield "|---|---|---:|---:|"
    for load in loads:
        for name in NAMES:
            results = runs.get((load, name))
            if not results:
                continue
            sizes = [result["rss_kib_per_connection"] for result in results]
            yield (f"| {LOADS[load][0]} | {name} | {results[0]['connections']:,} |"
                   f" {median(sizes):.2f} ({min(sizes):.2f}) |")
    yield ""


def ratio(runs, load, name, cost, peer):
    """The median of the ratios within each round: a round's runs are close in time."""
    if (load, peer) not in runs:
        return "-"
    return f"{median(ratios(runs, load, name, cost, peer)):.2f}"


def ratios(runs, load, name, cost, peer):
    base = cpu_without_store if peer == "tollgate" else cpu
    pairs = zip(runs[load, name], runs[load, peer])
    return [cost(a) / base(b) for a, b in pairs]


def by_thread(results):
    for group in [["net"], ["journal"], ["store"], ["http", "state", "other"]]:
        shares = [sum(result["cpu_us_per_message_by_thread"].get(name, 0) for name in group)
                  for result in results]
        yield f"{median(shares):.3f}"


def median(values):
    return statistics.median(list(values))
