#!/usr/bin/python3
"""Measures the board against its floors and limits, and prints a table: make bench.

    bench.py [--quick] [--list] [BENCH...]

Each bench starts a board of its own on a PostgreSQL of its own (fsync on). What a figure is compared
with, the bare loop or libpq, runs in the same minutes, in turns with the board; figures are medians.
BREADBOARD names the binary, as for the tests. The figures also go to build/bench.json, each single run
with all that it told. The exit status is 0 however slow the board was: timed runs decide nothing.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time

from board import BINARY, ROOT, Board, Database

BUILD = os.path.abspath(os.environ.get("BENCH_BUILD", os.path.join(ROOT, "build")))


class Bare:
    """The bare loop, as a server that can be loaded like a board."""

    def __init__(self, frame_bytes):
        self.process = subprocess.Popen(
            [os.path.join(BUILD, "bench_bare"), str(frame_bytes)], stdout=subprocess.PIPE, text=True)
        self.port = int(re.search(r":(\d+)/", self.process.stdout.readline()).group(1))

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Suite:
    def __init__(self, quick):
        self.quick = quick
        self.repeat = 2 if quick else 5
        self.rows = []
        self.runs = []
        self.servers = []
        self.database = Database(fsync="on")

    #  What benches do

    def board(self, **settings):
        settings.setdefault("limits_messages_per_second", 0)
        settings.setdefault("log_level", "error")
        settings.setdefault("database_url", self.database.url)
        self.servers.append(Board(**settings))
        return self.servers[-1]

    def bare(self, frame_bytes):
        self.servers.append(Bare(round(frame_bytes)))
        return self.servers[-1]

    def fill(self, messages):
        """Leaves so many messages on the board, each as long as those that the load adds."""
        self.database.sql("TRUNCATE messages RESTART IDENTITY")
        self.database.sql(
            "INSERT INTO messages (author, text, created_at) SELECT 'Bench', repeat('message ', 13),"
            " now() - interval '1 s' * n FROM generate_series(%s, 1, -1) AS n", messages)
        self.database.sql("VACUUM ANALYZE messages")

    def load(self, server, bench, **options):
        """One run of the load generator; returns its figures."""
        command = [os.path.join(BUILD, "bench_load"), bench, "--port", str(server.port),
                   "--pid", str(server.process.pid)]
        for name, value in options.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        return self.run(command, type(server).__name__.lower())

    def libpq(self, pipeline, seconds):
        return self.run([os.path.join(BUILD, "bench_libpq"), self.database.url, str(pipeline),
                         str(seconds)], "libpq")

    def run(self, command, what):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}")
        figures = json.loads(done.stdout)
        self.runs.append({"of": what, "command": command[1:], "figures": figures})
        return figures

    def messages(self):
        return self.database.sql("SELECT count(*) FROM messages")[0][0]

    #  The table

    def row(self, figure, values, unit, limit=None, least=False, floor=None, floor_name=None,
            note=""):
        """A figure from several runs. With a floor, from as many runs, the limit is for the ratio of
        the medians; without one it is for the figure itself. least: the limit is the least allowed."""
        value = statistics.median(values)
        base = statistics.median(floor) if floor else limit
        ratio = value / base if base else None
        measure = ratio if floor else value
        verdict = ""
        if limit is not None:
            verdict = "ok" if (measure >= limit if least else measure <= limit) else "MISSED"
        self.rows.append({
            "figure": figure, "value": value, "unit": unit, "from": min(values), "to": max(values),
            "compared_with": floor_name, "floor": base if floor else None, "limit": limit,
            "limit_is": None if limit is None else "least" if least else "most",
            "ratio": ratio, "verdict": verdict, "note": note})
        print(format_row(self.rows[-1]), flush=True)

    def close(self):
        while self.servers:
            server = self.servers.pop()
            try:
                server.stop()
            except subprocess.TimeoutExpired:
                server.process.kill()
                print("  it did not stop by itself, and was killed")


def column(runs, name):
    return [run[name] for run in runs]


#  Benches, by name; the docstring's first line is the table's heading


def fanout(suite):
    """Fan-out: one write after the other, each seen by all clients"""
    for clients, writes in ((1000, 300), (9000, 60)):
        suite.fill(10)
        board = suite.board()
        load = {"clients": clients, "writes": writes // 3 if suite.quick else writes}
        ours, bares = [suite.load(board, "fanout", **load)], []
        bare = suite.bare(ours[0]["bytes_per_delivery"])
        for _ in range(suite.repeat):
            bares.append(suite.load(bare, "fanout", **load))
            ours.append(suite.load(board, "fanout", **load))
        warm = ours[1:]  # The first run warms up, and tells the memory
        suite.row(f"{clients} clients: server CPU for a delivery",
                  column(warm, "server_cpu_us_per_delivery"), "us", 1.3,
                  floor=column(bares, "server_cpu_us_per_delivery"), floor_name="bare loop")
        suite.row(f"{clients} clients: last client has it, p99",
                  column(warm, "last_client_p99_us"), "us", 2,
                  floor=column(bares, "last_client_p99_us"), floor_name="bare loop")
        suite.row(f"{clients} clients: last client has it, median",
                  column(warm, "last_client_median_us"), "us",
                  floor=column(bares, "last_client_median_us"), floor_name="bare loop")
        suite.row(f"{clients} clients: deliveries a second", column(warm, "deliveries_per_second"),
                  "/s", floor=column(bares, "deliveries_per_second"), floor_name="bare loop",
                  note=f"{ours[0]['bytes_per_delivery']:.0f} bytes each")
        suite.close()


def connections(suite):
    """Connections: as many as 20,000 descriptors allow, in a process that has just started"""
    suite.fill(10)
    clients = 6000 if suite.quick else 18000
    figures = suite.load(suite.board(), "fanout", clients=clients, writes=5)
    suite.row("connections that stand, and see 5 writes", [figures["clients"]], "",
              clients, least=True)
    suite.row("memory in the process for each", [figures["server_kb_per_connection"]], "KB", 2)
    suite.row("connects a second on the way there", [figures["connects_per_second"]], "/s")


def storm(suite):
    """Connect storm: each until its first page is there"""
    suite.fill(10)
    board = suite.board()
    for at_once in (64, 1000):
        runs = [suite.load(board, "storm", clients=2000 if suite.quick else 9000, at_once=at_once)
                for _ in range(min(3, suite.repeat))]
        suite.row(f"{at_once} at once: connects a second", column(runs, "connects_per_second"), "/s",
                  5000, least=True)
        suite.row(f"{at_once} at once: first page, p99", column(runs, "first_page_p99_us"), "us")
        suite.row(f"{at_once} at once: cut off", column(runs, "cut_off"), "", 0)


def acknowledgement(suite, board):
    """How the board acknowledges an add: by ref, unless it is too old for that."""
    figures = suite.load(board, "writes", clients=1, seconds=0.2, ack="ref")
    return "ref" if figures["acknowledged"] else "frame"


def write_once(suite, board, ack, **load):
    """One run; the acknowledgements must be as many as the rows that it leaves."""
    suite.fill(10)
    before = suite.messages()
    suite.database.sql("CHECKPOINT")
    figures = suite.load(board, "writes", ack=ack, **load)
    rows = suite.messages() - before
    acknowledged = figures["acknowledged_with_warm_up"]
    figures["rows"] = rows
    if ack == "frame":  # A frame may show what another writer wrote
        figures["acknowledged_per_second"] *= min(1, rows / max(1, acknowledged))
    elif rows != acknowledged:
        raise RuntimeError(f"{acknowledged:.0f} acknowledgements for {rows} rows")
    return figures


def writes(suite):
    """Writes: acknowledged adds a second, fsync on, beside what libpq alone inserts"""
    suite.fill(10)
    board = suite.board()
    ack = acknowledgement(suite, board)
    note = "" if ack == "ref" else "acknowledged by list frames: the board knows no ref"
    seconds = 1 if suite.quick else 2
    for writers, pipeline, limit in ((1, 1, 0.5), (16, 16, None), (256, 256, 0.6)):
        runs, floor = [], []
        for _ in range(suite.repeat):
            runs.append(write_once(suite, board, ack, clients=writers, seconds=seconds))
            suite.fill(10)
            suite.database.sql("CHECKPOINT")
            floor.append(suite.libpq(pipeline, seconds))
        suite.row(f"{writers} writers: adds a second", column(runs, "acknowledged_per_second"), "/s",
                  limit, least=True, floor=column(floor, "inserts_per_second"),
                  floor_name=f"libpq, pipeline of {pipeline}", note=note)
        suite.row(f"{writers} writers: acknowledgement, p99", column(runs, "acknowledgement_p99_us"),
                  "us")
    if ack == "ref":
        runs = [write_once(suite, board, ack, clients=16, pipeline=16, seconds=seconds)
                for _ in range(suite.repeat)]
        suite.row("16 writers, each 16 in flight: adds a second",
                  column(runs, "acknowledged_per_second"), "/s",
                  floor=column(floor, "inserts_per_second"), floor_name="libpq, pipeline of 256")


def get(suite):
    """GET / on 16 connections that are kept open, from memory"""
    suite.fill(10)
    board = suite.board()
    runs = [suite.load(board, "get", clients=16, seconds=1 if suite.quick else 2)
            for _ in range(suite.repeat)]
    suite.row("requests a second", column(runs, "requests_per_second"), "/s", 10000, least=True,
              note=f"{runs[0]['bytes_per_response']:.0f} bytes each")
    suite.row("request, p99", column(runs, "request_p99_us"), "us")


def slow(suite):
    """Slow readers: 450 clients, beside 50 that never read"""
    suite.fill(10)
    board = suite.board()
    load = {"clients": 450, "writes": 200 if suite.quick else 600}
    alone, beside = [], []
    suite.load(board, "fanout", **load)
    for _ in range(suite.repeat):
        alone.append(suite.load(board, "fanout", **load))
        beside.append(suite.load(board, "fanout", slow=50, **load))
    suite.row("the others: last one has it, p99", column(beside, "last_client_p99_us"), "us", 1.2,
              floor=column(alone, "last_client_p99_us"), floor_name="without them")
    suite.row("the others: server CPU for a delivery", column(beside, "server_cpu_us_per_delivery"),
              "us", 1.2, floor=column(alone, "server_cpu_us_per_delivery"),
              floor_name="without them")
    suite.row("the process grows by", column(beside, "server_kb_growth"), "KB", 10 * 1024)
    suite.row("the kernel's buffers grow by, for each",
              [kb / 50 for kb in column(beside, "kernel_tcp_kb_growth")], "KB")


def flood(suite):
    """Flood: one client sends without end (limits as shipped); 100 others see 10 writes a second"""
    board = suite.board(limits_messages_per_second=20)
    load = {"clients": 100, "writes": 10 if suite.quick else 30, "rate": 10}
    alone = []
    kinds = {"malformed": [], "list": [], "add": []}
    for _ in range(1 if suite.quick else 3):
        suite.fill(10)
        alone.append(suite.load(board, "fanout", **load))
        for kind, runs in kinds.items():
            runs.append(suite.load(board, "fanout", flood=kind, **load))
    for kind, runs in kinds.items():
        suite.row(f"{kind}: the last client has it, p99", column(runs, "last_client_p99_us"), "us",
                  floor=column(alone, "last_client_p99_us"), floor_name="without it")
        suite.row(f"{kind}: server CPU for a delivery", column(runs, "server_cpu_us_per_delivery"), "us",
                  floor=column(alone, "server_cpu_us_per_delivery"), floor_name="without it")


def turns(suite):
    """Page turns: 200 clients on 1,000 pages, each turns to another as soon as it has one"""
    suite.fill(5000)
    board = suite.board()
    load = {"clients": 200, "pages": 1000, "seconds": 1 if suite.quick else 2}
    still, busy = [], []
    for _ in range(1 if suite.quick else 3):
        still.append(suite.load(board, "turns", **load))
        busy.append(suite.load(board, "turns", rate=20, **load))
    suite.row("turns a second", column(still, "turns_per_second"), "/s")
    suite.row("a turn, p99", column(still, "turn_p99_us"), "us")
    suite.row("while somebody writes 20 times a second: turns", column(busy, "turns_per_second"),
              "/s")
    suite.row("while somebody writes: a turn, p99", column(busy, "turn_p99_us"), "us")
    suite.row("while somebody writes: page 1 shows it, p99", column(busy, "write_p99_us"), "us",
              250000, note="deep pages may wait 250 ms, page 1 never")


BENCHES = [fanout, connections, storm, writes, get, slow, flood, turns]


#  Output


def number(value):
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def format_row(row):
    against = ""
    if row["floor"] is not None:
        against = f"{row['compared_with']} {number(row['floor'])}"
    limit = ""
    if row["limit"] is not None:
        limit = ("at least " if row["limit_is"] == "least" else "at most ") + number(row["limit"])
        limit += " x" if row["floor"] is not None else ""
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    spread = f"{number(row['from'])}..{number(row['to'])}"
    return (f"  {row['figure']:<49} {number(row['value']) + ' ' + row['unit']:>12} {spread:>19}"
            f"  {against:<30} {limit:<16} {ratio:>5}  {row['verdict']:<6} {row['note']}").rstrip()


HEADING = (f"  {'figure':<49} {'median':>12} {'from..to':>19}  {'compared with':<30} {'limit':<16}"
           f" {'ratio':>5}")


def cpu_model():
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as info:
        return re.search(r"^model name\s*:\s*(.+)$", info.read(), re.MULTILINE).group(1)


def machine(suite):
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "postgresql": suite.database.sql("SHOW server_version")[0][0],
        "fsync": suite.database.sql("SHOW fsync")[0][0],
        "load_average_before": os.getloadavg()[0],
        "shares_cores": "the load generator, PostgreSQL and the server share the cores",
    }


def begin(suite):
    """Makes the table, and prints what stands above the figures; returns what there is to tell of the machine."""
    suite.board()
    suite.close()
    about = machine(suite)
    about["binary"] = os.path.relpath(BINARY, ROOT)
    print_machine(about)
    print(HEADING)
    return about


def print_machine(about):
    print(f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, PostgreSQL"
          f" {about['postgresql']}, fsync {about['fsync']}; {about['shares_cores']}")
    if about["load_average_before"] > 0.5:
        print(f"Others use this machine (load average {about['load_average_before']:.1f}):"
              " only ratios mean anything, and those little.")


def save(suite, about, name):
    path = os.path.join(BUILD, name)
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"machine": about, "rows": suite.rows, "runs": suite.runs}, file, indent=1)
        file.write("\n")
    return os.path.relpath(path)


def finish(suite, about, start, name="bench.json"):
    """Saves what was measured since start, and prints the last line."""
    about["load_average_after"] = os.getloadavg()[0]
    about["seconds"] = round(time.monotonic() - start)
    missed = sum(row["verdict"] not in ("", "ok") for row in suite.rows)
    print(f"\n{missed} limits missed; {about['seconds']} s; {save(suite, about, name)}")


def run_bench(suite, bench):
    print(f"\n{bench.__doc__.splitlines()[0]}", flush=True)
    try:
        bench(suite)
    except (RuntimeError, AssertionError) as error:
        print(f"  {bench.__name__} was not measured: {error}")
        suite.rows.append({"figure": bench.__name__, "verdict": "NOT MEASURED", "note": str(error)})
    finally:
        suite.close()


def main():
    names = {bench.__name__: bench for bench in BENCHES}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    parser.add_argument("--list", action="store_true", help="only name the benches")
    parser.add_argument("bench", nargs="*", help=", ".join(names))
    options = parser.parse_args()
    unknown = set(options.bench) - set(names)
    if unknown:
        parser.error(f"no such bench: {', '.join(sorted(unknown))}")
    if options.list:
        print("\n".join(f"{name:<12} {bench.__doc__.splitlines()[0]}"
                        for name, bench in names.items()))
        return
    start = time.monotonic()
    suite = Suite(options.quick)
    try:
        about = begin(suite)
        for name in options.bench or names:
            run_bench(suite, names[name])
    finally:
        suite.close()
        suite.database.destroy()
    finish(suite, about, start)


if __name__ == "__main__":
    sys.exit(main())
