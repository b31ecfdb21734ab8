"""bench.py: this library beside others and beside the least that a C program can do, against the same sink.

Every client runs with few and with many messages in each round; the difference is what a message takes, so that neither
a start nor a connection counts. A figure is the median over the rounds, and a ratio is taken within each round first.
Waits, system calls and instructions are counted in runs of their own. Clients run on one processor, the sink on another.

Run by `make bench`; all that it makes is in build/bench."""

import argparse
import json
import os
import platform
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field

import chart

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BENCH = f"{ROOT}/build/bench"
LUA = os.environ.get("LUA", "lua5.4")
DEADLINE = 60  # seconds that one run of a client may take
ATTACHMENT = 25_000_000
PROCESSORS = sorted(os.sched_getaffinity(0))

os.environ["PATH"] += ":/usr/sbin"
os.environ["BENCH"] = BENCH
os.environ["NODE_PATH"] = f"{ROOT}/build/npm/node_modules"


@dataclass
class Client:
    argv: list
    env: dict = field(default_factory=dict)
    kind: str = "peer"  # or "ours", "floor"
    slower: int = 1     # how much fewer messages it gets
    steps: bool = True  # whether valgrind can count its instructions in reasonable time


def ours(**env):
    return Client([LUA, f"{HERE}/clients/ours.lua"], env, "ours")


def floor(**env):
    return Client([f"{BENCH}/floor"], env, "floor")


NODE = ["node", f"{HERE}/clients/nodemailer.js"]
SOURCE = [f"{HERE}/clients/smtp-source.sh"]
LUASOCKET = [LUA, f"{HERE}/clients/luasocket.lua"]

CLIENTS = {
    "floor": floor(),
    "floor, 10 a flight": floor(WINDOW="10"),
    "floor, resumed": floor(RESUME="1"),
    "smtp": ours(),
    "smtp, composing": ours(FORM="compose"),
    "smtp, one by one": ours(HOW="alone"),
    "smtp, 10 a flight": ours(PIPELINE="chunk"),
    "smtp, auth": ours(PIPELINE="auth"),
    "smtp, auth+chunk": ours(PIPELINE="auth+chunk"),
    "smtp, 10 conns": ours(CONNECTIONS="10"),
    "smtp, 10, chunk": ours(CONNECTIONS="10", PIPELINE="chunk"),
    "smtp, 100 conns": ours(CONNECTIONS="100"),
    "smtp-source": Client(SOURCE),
    "smtp-source, 10 conns": Client(SOURCE, {"CONNECTIONS": "10"}),
    "libcurl": Client([f"{BENCH}/curl"]),
    "LuaSocket": Client(LUASOCKET, slower=50),
    "LuaSocket, no Nagle": Client(LUASOCKET, {"NODELAY": "1"}),
    "smtplib": Client([sys.executable, f"{HERE}/clients/smtplib_driver.py"], steps=False),
    "Nodemailer": Client(NODE, steps=False),
    "Nodemailer, 10 conns": Client(NODE, {"CONNECTIONS": "10"}, steps=False),
}


@dataclass
class Work:
    title: str
    argument: str       # what the drivers call it
    unit: str           # of the time shown: us, ms, s a message, or MB/s
    few: int
    many: int           # 0: one run of `few`, start and all
    clients: list
    floor: str = "floor"
    slower: int = 1     # how much fewer messages peers get
    tls: bool = False
    rcpts: int = 1
    delay: int = 0      # ms that the network takes each way
    sink: tuple = ()
    rounds: int = 99    # at most
    counts: bool = False

    def numbers(self, client, scale=1.0):
        if not self.many:
            return (self.few,)
        share = (self.slower if client.kind == "peer" else 1) * client.slower
        few = max(1, self.few // (share if self.delay else client.slower))
        return few, few + max(1, int((self.many - self.few) * scale / share))


PEERS = ["libcurl", "LuaSocket, no Nagle", "smtplib", "Nodemailer"]
KEPT = ["floor", "floor, 10 a flight", "smtp", "smtp, composing", "smtp, one by one", "smtp, 10 a flight"]
COLD = ["floor", "smtp", "smtp, auth", "smtp, auth+chunk", "LuaSocket", *PEERS]
BIG = ["floor", "smtp", *PEERS]
TRIPS = ["floor", "smtp", "smtp-source", *PEERS]

WORKS = {
    "small": Work("A message of 1 KB, connection kept", "keep", "us", 300, 4500, [*KEPT, "smtp-source", "LuaSocket", *PEERS],
                  slower=4, counts=True),
    "small-tls": Work("A message of 1 KB, connection kept, TLS", "keep", "us", 300, 4500, [*KEPT, *PEERS], slower=4, tls=True,
                      counts=True),
    "cold": Work("Cold: connect, TLS 1.3, log in, 1 KB message, quit", "cold", "us", 5, 150, COLD, tls=True,
                 sink=("-x", "TICKETS"), counts=True),
    "cold-resumed": Work("Cold again, to a server known before (TLS resumed)", "cold", "us", 5, 150,
                         ["floor", "floor, resumed", "smtp", "smtp, auth+chunk"], tls=True, counts=True),
    "big": Work("An attachment of 25 MB", "big", "MB/s", 1, 21, BIG, slower=20, rounds=3),
    "big-tls": Work("An attachment of 25 MB, TLS", "big", "MB/s", 1, 13, BIG, slower=12, tls=True, rounds=3),
    "trips": Work("Round trips of 50 ms, connection kept", "keep", "s", 5, 15, TRIPS, slower=3, delay=25, rounds=1),
    "trips-10": Work("Round trips of 50 ms, 10 recipients", "keep", "s", 5, 15, TRIPS, slower=5, delay=25, rounds=1, rcpts=10),
    "slow": Work("100 messages, 100 ms a command", "pool", "s", 100, 0,
                 ["smtp, 10 conns", "smtp, 10, chunk", "smtp, 100 conns", "smtp-source, 10 conns",
                  "Nodemailer, 10 conns"], sink=("-d", "100"), rounds=1),
}


def succeeds(*argv):
    try:
        return subprocess.run(argv, capture_output=True, timeout=DEADLINE).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def missing():
    """What is not here, and why: {name's beginning: reason}."""
    probes = {
        "smtp-source": (shutil.which("smtp-source"), "Postfix's smtp-source is not installed"),
        "libcurl": (os.path.exists(f"{BENCH}/curl"), "libcurl's headers are not installed"),
        "LuaSocket": (succeeds(LUA, "-e", "require 'socket.smtp' require 'ssl'"), f"no LuaSocket and LuaSec for {LUA}"),
        "Nodemailer": (succeeds("node", "-e", "require('nodemailer')"), "no node with the package nodemailer"),
        "syscalls": (shutil.which("strace"), "strace is not installed"),
        "instructions": (shutil.which("valgrind"), "valgrind is not installed"),
    }
    return {name: reason for name, (here, reason) in probes.items() if not here}


def prepare():
    """The messages, the attachment and the certificates."""
    head = ("From: Ada <ada@example.org>\r\nTo: Bob <bob@example.net>\r\nSubject: A small message\r\n"
            "Date: Sun, 23 Nov 2025 17:00:00 +0000\r\nMessage-ID: <0123456789@example.org>\r\n\r\n")
    line = "A line of the text, which has sixty-four octets with its end.\r\n"
    text = (line * 20)[:1022 - len(head)] + "\r\n"
    for name, content in (("small.eml", head + text), ("small.txt", text.replace("\r\n", "\n"))):
        with open(f"{BENCH}/{name}", "w", newline="") as file:
            file.write(content)
    if not os.path.exists(f"{BENCH}/att.bin"):
        with open(f"{BENCH}/att.bin", "wb") as file:
            file.write(random.Random(1).randbytes(ATTACHMENT))
    shutil.rmtree(f"{BENCH}/pki", ignore_errors=True)
    subprocess.run(["bash", f"{ROOT}/spec/support/pki.sh", f"{BENCH}/pki"], check=True, capture_output=True)


class Background:
    """A tool of ours that prints the ports it listens on."""

    def __init__(self, ports, *argv):
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True,
                                        preexec_fn=lambda: os.sched_setaffinity(0, PROCESSORS[-1:]))
        self.ports = [int(self.process.stdout.readline()) for _ in range(ports)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


class Sink(Background):
    def __init__(self, *options):
        super().__init__(3, f"{BENCH}/sink", "-c", f"{BENCH}/pki/localhost.pem", "-k", f"{BENCH}/pki/localhost.key", *options)

    def counters(self):
        """What it counted since they were asked for the last time."""
        with socket.create_connection(("127.0.0.1", self.ports[2]), DEADLINE) as peer:
            return json.loads(peer.makefile().read())


class Failed(Exception):
    pass


def run(work, client, sink, port, count, before=()):
    """One run: seconds, processor seconds, peak memory in KB, and what the sink counted."""
    out = f"{BENCH}/run.out"
    env = {**os.environ, **client.env, **({"TLS": "1"} if work.tls else {})}
    argv = [*before, *client.argv, work.argument, str(port), str(count), str(work.rcpts)]
    if os.path.exists(out):
        os.unlink(out)
    sink.counters()
    with open(f"{BENCH}/run.err", "w+") as err:
        process = subprocess.Popen([f"{BENCH}/runner", out, str(DEADLINE), *argv], env=env, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=err,
                                   preexec_fn=lambda: os.sched_setaffinity(0, PROCESSORS[:1]))
        try:
            process.wait(DEADLINE + 5)
        finally:
            process.terminate()
            process.wait()
        err.seek(0)
        said = err.read(300).strip()
    counted = sink.counters()
    status, wall, user, system, memory = open(out).read().split()
    if status != "0" or counted["msgs"] < count:
        raise Failed(f"status {status}, {counted['msgs']} of {count} messages: {said}")
    return {"seconds": float(wall), "cpu": float(user) + float(system), "memory": int(memory), **counted}


def per_message(work, client, sink, port, scale):
    """What one more message takes."""
    numbers = work.numbers(client, scale)
    runs = [run(work, client, sink, port, number) for number in numbers]
    if len(runs) == 1:
        return {key: runs[0][key] / numbers[0] if key == "cpu" else runs[0][key] for key in ("seconds", "cpu", "memory")}
    more = numbers[1] - numbers[0]
    # few messages on a busy machine may seem to take less than none
    return {**{key: max(1e-9, (runs[1][key] - runs[0][key]) / more) for key in ("seconds", "cpu")}, "memory": runs[1]["memory"]}


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def measure(work, names, rounds, scale):
    """{client: figures} of time, processor time and memory."""
    samples = {name: [] for name in names}
    idle = {}
    with Sink(*work.sink) as sink:
        port = sink.ports[1 if work.tls else 0]
        proxy = work.delay and Background(1, f"{BENCH}/proxy", str(port), str(work.delay))
        try:
            for number in range(min(rounds, work.rounds)):
                taken = {}
                for name in names:
                    client = CLIENTS[name]
                    try:
                        if name not in idle:  # what it needs to be there at all
                            idle[name] = run(work, client, sink, port, 0)["memory"] if name[:11] != "smtp-source" else None
                        taken[name] = per_message(work, client, sink, proxy.ports[0] if proxy else port, scale)
                    except Failed as failure:
                        print(f"  FAILED: {name}: {failure}", file=sys.stderr)
                for name, one in taken.items():
                    base = taken.get(work.floor)
                    one["to_floor"] = base and base["seconds"] > 0 and one["seconds"] / base["seconds"] or None
                    one["cpu_to_floor"] = base and base["cpu"] > 0 and one["cpu"] / base["cpu"] or None
                    one["growth"] = idle.get(name) and max(0, one["memory"] - idle[name])
                    samples[name].append(one)
        finally:
            if proxy:
                proxy.__exit__()
    return {name: {key: median(one[key] for one in taken) for key in taken[0]} for name, taken in samples.items() if taken}


def waits(work, client):
    """How often a message waits for the server, after TCP and TLS; for a QUIT of its own too."""
    with Sink("-f", "3", *work.sink) as sink:
        few, many = (run(work, client, sink, sink.ports[1 if work.tls else 0], count)["flights"] for count in (10, 30))
    # of a cold send the sink counts the end of the handshake, but not the wait for the greeting
    return (many - few) / 20


def syscalls(work, client):
    out = f"{BENCH}/strace.out"

    def total(sink, count):
        run(work, client, sink, sink.ports[1 if work.tls else 0], count, ["strace", "-f", "-c", "-o", out])
        # % time, seconds, usecs/call, calls, errors, "total": the errors may be missing
        return int(open(out).read().splitlines()[-1].split()[3])

    with Sink(*work.sink) as sink:
        few, many = total(sink, 20), total(sink, 120)
    return (many - few) / 100


def instructions(work, client):
    out = f"{BENCH}/callgrind.out"
    # of the small ones so many that the collector's rounds even out
    numbers = (4, 12) if work.argument == "cold" else (100, 500)

    def total(sink, count):
        run(work, client, sink, sink.ports[1 if work.tls else 0], count,
            ["valgrind", "--tool=callgrind", "--trace-children=yes", f"--callgrind-out-file={out}"])
        return int(re.search(r"^(?:summary|totals): (\d+)", open(out).read(), re.M).group(1))

    with Sink(*work.sink) as sink:
        few, many = (total(sink, number) for number in numbers)
    return (many - few) / (numbers[1] - numbers[0])


def count(work, names, absent):
    """{client: figures} of what does not depend on the day."""
    counters = {"waits": waits, "syscalls": syscalls, "instructions": instructions}
    counters = {name: counter for name, counter in counters.items() if name not in absent}
    results = {name: {} for name in names}
    for name in names:
        client = CLIENTS[name]
        for key, counter in counters.items():
            # with Nagle's algorithm it only takes longer
            if name == "LuaSocket" or (key == "instructions" and not client.steps):
                continue
            try:
                results[name][key] = counter(work, client)
            except (Failed, OSError, AttributeError, ValueError) as failure:
                print(f"  skipped: {key} of {name}: {failure}", file=sys.stderr)
    return results


def show_time(unit, seconds):
    if unit == "MB/s":
        return f"{ATTACHMENT / 1e6 / seconds:.0f} MB/s" if seconds > 0 else "-"
    return {"us": f"{seconds * 1e6:.1f} us", "ms": f"{seconds * 1e3:.2f} ms", "s": f"{seconds:.3f} s"}[unit]


def show(rows):
    """The table."""
    heads = ["", "time", "x floor", "x peer", "CPU", "x floor", "waits", "calls", "instructions", "memory"]

    def text(value, form):
        return "" if value is None else form.format(value)

    lines = []
    for work in dict.fromkeys(row["work"] for row in rows):
        lines.append([WORKS[work].title])
        for row in (row for row in rows if row["work"] == work):
            lines.append(["  " + row["client"], show_time(row["unit"], row["seconds"]), text(row.get("to_floor"), "{:.2f}"),
                          text(row.get("to_peer"), "{:.2f}"), text(row["cpu"] * 1e6, "{:.1f} us"),
                          text(row.get("cpu_to_floor"), "{:.2f}"), text(row.get("waits"), "{:.3g}"),
                          text(row.get("syscalls"), "{:.3g}"), text(row.get("instructions"), "{:,.0f}"),
                          text(row.get("growth"), "+{:.0f} KB")])
    widths = [max(len(line[i]) for line in [heads, *lines] if len(line) > 1) for i in range(len(heads))]
    for line in [heads, *lines]:
        print("  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                        for i, (cell, width) in enumerate(zip(line, widths))).rstrip() if len(line) > 1 else "\n" + line[0])


def said(pattern, *argv):
    try:
        output = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(pattern, output.stdout + output.stderr)
    return found and found.group(0)


def about(rounds):
    with open("/proc/cpuinfo") as file:
        model = re.search(r"model name\s*: (.*)", file.read())
    versions = [
        said(r"Lua(JIT)? [\d.]+", LUA, "-v"),
        said(r"OpenSSL [\d.]+", "openssl", "version"),
        "Python " + platform.python_version(),
        (found := said(r"[\d.]+", "curl-config", "--version")) and "libcurl " + found,
        (found := said(r"[\d.]+", LUA, "-e", "print(require 'socket'._VERSION)")) and "LuaSocket " + found,
        (found := said(r"[\d.]+", "postconf", "-d", "-h", "mail_version")) and "Postfix " + found,
        said(r"Nodemailer [\d.]+", "node", "-p", "'Nodemailer ' + require('nodemailer/package.json').version"),
    ]
    return {"date": time.strftime("%Y-%m-%d"), "rounds": rounds,
            "machine": f"{model.group(1).strip() if model else platform.machine()}, {os.cpu_count()} CPUs, "
                       f"Linux {platform.release().split('-')[0]}, loopback",
            "versions": ", ".join(version for version in versions if version)}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only", default="", help="some of " + ",".join(WORKS))
    options.add_argument("--clients", default="", help="some of " + "; ".join(CLIENTS) + " (separated by semicolons)")
    options.add_argument("--scale", type=float, default=1.0, help="of the numbers of messages")
    options.add_argument("--out", default=BENCH, help="folder for bench.json and bench.svg")
    options.add_argument("--chart", help="another place for the chart")
    given = options.parse_args()
    only = given.only.split(",") if given.only else list(WORKS)
    clients = [name.strip() for name in given.clients.split(";")] if given.clients else list(CLIENTS)
    for name in [*(set(only) - set(WORKS)), *(set(clients) - set(CLIENTS))]:
        options.error(f"there is no {name}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    prepare()
    absent = missing()
    for name, reason in absent.items():
        print(f"SKIPPED: {name}: {reason}")
    rows = []
    for key in only:
        work = WORKS[key]
        names = [name for name in work.clients if name in clients and name.split(",")[0] not in absent]
        print(f"{time.strftime('%H:%M:%S')} {work.title}", file=sys.stderr)
        figures = measure(work, names, given.rounds, given.scale)
        counted = count(work, figures, absent) if work.counts else {}
        best = min((one["seconds"] for name, one in figures.items() if CLIENTS[name].kind == "peer"), default=None)
        for name, one in figures.items():
            rows.append({"work": key, "client": name, "kind": CLIENTS[name].kind, "unit": work.unit, **one,
                         "to_peer": best and one["seconds"] / best, **counted.get(name, {})})
    show(rows)
    result = {**about(given.rounds), "skipped": absent, "works": {key: WORKS[key].title for key in only}}
    with open(f"{given.out}/bench.json", "w") as file:
        # a row a line
        file.write(json.dumps(result)[:-1] + ',\n"rows": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]}\n")
    drawn = chart.draw({**result, "rows": rows})
    for path in [f"{given.out}/bench.svg", *([given.chart] if given.chart else [])]:
        with open(path, "w") as file:
            file.write(drawn)


try:
    main()
except KeyboardInterrupt:
    sys.exit(130)
