#!/usr/bin/env python3
"""bench.py [-r ROUNDS] [-x SCALE] [-o FILE.json] [-c FILE.svg] [WORKLOAD ...]: this library beside others, in one run.

Clients run on one CPU, the sink on another. In every round each client runs once with few and once with many messages,
in turn; a figure is the difference over the difference, so that start-up is not in it, and the median over the rounds.
Ratios are taken within a round. System calls (strace), waits (a sink that gathers what belongs together) and
instructions (callgrind) are counted in runs of their own; they have no noise. What is not installed is skipped, and said
so. Runs in build/bench, where `make bench` has built the sink, the floors and the proxy.
"""
import argparse, datetime, json, os, platform, random, re, shutil, signal, socket, statistics, subprocess, sys, time
import chart

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENTS = os.path.join(HERE, "clients")
LUA = os.environ.get("LUA", "lua5.4")
LIMIT = 300  # seconds that one run of a client may take
FLOOR, OURS, PEER = "floor", "ours", "peer"


class Client:
    def __init__(self, name, kind, argv, env=None, counts=None, needs=(), unit=1):
        self.name, self.kind, self.argv, self.env = name, kind, argv, env or {}
        self.counts, self.needs = counts, needs


def floor(mode, counts, **env):
    return Client(mode_name(mode, env), FLOOR, ["./floor", mode], env, counts)


def mode_name(mode, env):
    names = {"pipe2": "floor: one flight a message (DATA)", "cold": "floor: cold", "big": "floor: attachment"}
    if mode == "bdat":
        return "floor: ten messages a flight (BDAT)"
    return names[mode] + (", resumed" if env.get("RESUME") else "")


def ours(name, workload, counts, **env):
    return Client("smtp: " + name, OURS, [LUA, CLIENTS + "/ours.lua", workload], env, counts)


def peer(name, argv, counts, **env):
    return Client(name, PEER, argv, env, counts)


def curl(workload, counts, name="libcurl"):
    return peer(name, ["./curl", workload], counts)


def luasocket(workload, counts, name="LuaSocket"):
    return peer(name, [LUA, CLIENTS + "/luasocket.lua", workload], counts)


def smtplib(workload, counts, name="smtplib"):
    return peer(name, ["python3", CLIENTS + "/python_smtplib.py", workload], counts)


def nodemailer(workload, counts, name="Nodemailer", **env):
    return peer(name, ["node", CLIENTS + "/nodemailer.js", workload], counts, **env)


def smtp_source(counts, *options, name="smtp-source"):
    return peer(name, ["smtp-source", *options], counts)


def workloads():
    """name -> title, TLS, options of the sink, delay each way in ms, recipients, clients; the first floor is the measure"""
    return {
        "small": dict(title="1 KB, connection kept", clients=[
            floor("pipe2", (200, 15000)), floor("bdat", (1000, 100000), WINDOW="10"),
            ours("ready, a batch", "ready", (200, 15000)), ours("composing each, a batch", "composing", (200, 12000)),
            ours("ready, one by one", "alone", (200, 8000)),
            ours("ready, a batch, pipeline = \"chunk\"", "ready", (1000, 60000), PIPELINE="chunk"),
            smtp_source((200, 5000)), curl("keep", (200, 5000)), curl("compose", (200, 4000), "libcurl, composing each"),
            luasocket("keepnd", (200, 4000), "LuaSocket, Nagle off by hand"),
            luasocket("composend", (200, 4000), "LuaSocket, Nagle off by hand, composing each"),
            smtplib("keep", (100, 2000)), smtplib("compose", (100, 800), "smtplib, composing each"),
            nodemailer("keep", (300, 2500)), nodemailer("compose", (300, 2500), "Nodemailer, composing each")]),
        "small-tls": dict(title="1 KB, connection kept, TLS 1.3", tls=True, clients=[
            floor("pipe2", (200, 12000), TLS="1"),
            ours("ready, a batch", "ready", (200, 10000), TLS="1"), ours("composing each, a batch", "composing", (200, 8000), TLS="1"),
            curl("keeptls", (200, 4000)), luasocket("keeptlsnd", (200, 3000), "LuaSocket, Nagle off by hand"),
            smtplib("keeptls", (100, 2000)), nodemailer("keeptls", (300, 2500))]),
        "cold": dict(title="connect, TLS 1.3, login, one message, quit", tls=True, clients=[
            floor("cold", (5, 250)), floor("cold", (5, 250), RESUME="1"),
            ours("not resumed", "cold", (5, 250), TLS="1", FULL="1"), ours("resumed (the default)", "cold", (5, 250), TLS="1"),
            ours("pipeline = \"auth\"", "cold", (5, 250), TLS="1", PIPELINE="auth"),
            ours("pipeline = \"auth+chunk\"", "cold", (5, 250), TLS="1", PIPELINE="auth+chunk"),
            curl("cold", (5, 200)), luasocket("cold", (2, 20)), smtplib("cold", (5, 150)), nodemailer("cold", (20, 200))]),
        "attachment": dict(title="a 25 MB attachment", big=True, clients=[
            floor("big", (2, 12), B64="avx2", LINES="3360"),
            ours("by DATA", "attachment", (2, 12)), ours("by BDAT", "attachment", (2, 12), PIPELINE="chunk"),
            curl("big", (1, 2)), luasocket("big", (1, 2)), smtplib("big", (1, 2)), nodemailer("big", (1, 3))]),
        "attachment-tls": dict(title="a 25 MB attachment, TLS 1.3", tls=True, big=True, clients=[
            floor("big", (2, 10), TLS="1", B64="avx2", LINES="3360"),
            ours("by DATA", "attachment", (2, 10), TLS="1"), ours("by BDAT", "attachment", (2, 10), TLS="1", PIPELINE="chunk"),
            curl("bigtls", (1, 2)), luasocket("bigtlsnd", (1, 2)), smtplib("bigtls", (1, 2)), nodemailer("bigtls", (1, 3))]),
        "far": dict(title="50 ms round trips, 1 recipient", delay=25, clients=far_clients()),
        "far-10": dict(title="50 ms round trips, 10 recipients", delay=25, recipients=10, clients=far_clients()),
        "slow": dict(title="100 messages, 100 ms a command", sink=["-d", "100"], whole=True, clients=[
            ours("10 connections", "pool", (100,), CONNS="10"),
            ours("10 connections, pipeline = \"chunk\"", "pool", (100,), CONNS="10", PIPELINE="chunk"),
            ours("100 connections", "pool", (100,), CONNS="100"),
            smtp_source((100,), "-s10", name="smtp-source, 10 connections"),
            nodemailer("conc", (100,), "Nodemailer, 10 connections", CONNS="10")]),
    }


def far_clients():
    return [floor("pipe2", (5, 25)), ours("ready, a batch", "ready", (5, 25)), ours("ready, one by one", "alone", (5, 25)),
            ours("ready, a batch, pipeline = \"chunk\"", "ready", (10, 60), PIPELINE="chunk"),
            smtp_source((5, 15)), curl("keep", (5, 15)), luasocket("keepnd", (5, 15), "LuaSocket, Nagle off by hand"),
            smtplib("keep", (5, 15)), nodemailer("keep", (5, 25))]


def absent(client):
    """what keeps a client from running here; None: nothing"""
    program = client.argv[0]
    if not (os.path.exists(program) or shutil.which(program)):
        return f"{program} is not there"
    if program == "node" and not quiet(["node", "-e", "require('nodemailer')"]):
        return "npm's nodemailer is not installed"
    if "luasocket" in " ".join(client.argv):
        for module in ["socket.smtp"] + (["ssl"] if "tls" in client.argv[-1] or client.argv[-1] == "cold" else []):
            if not quiet([LUA, "-e", f"require '{module}'"]):
                return f"{LUA} has no module {module}"


def quiet(argv):
    return subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def command(client, port, count, recipients):
    if client.argv[0] == "smtp-source":
        options = client.argv[1:] or ["-s1"]
        return ["smtp-source", *options, "-d", f"-m{count}", "-l1024", f"-r{recipients}", "-fa@example.com",
                "-tb@example.net", f"127.0.0.1:{port}"]
    return [*client.argv, str(port), str(count), str(recipients)]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Started:
    """programs that end with the block"""

    def __init__(self):
        self.running = []

    def __enter__(self):
        return self

    def start(self, argv, port):
        self.running.append(subprocess.Popen(argv))
        deadline = time.monotonic() + 5
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def __exit__(self, *_):
        for one in self.running:
            one.terminate()
            one.wait()


class Sink(Started):
    """the sink, and a proxy before it where there is a delay; `port` is the one for clients"""

    def __init__(self, load, *options):
        super().__init__()
        plain, tls, self.stat = free_port(), free_port(), free_port()
        pin = ["taskset", "-c", str(os.cpu_count() - 1)] if shutil.which("taskset") else []
        self.start([*pin, "./sink", "-p", str(plain), "-s", str(tls), "-t", str(self.stat), "-c", "cert.pem", "-k", "key.pem",
                    *load.get("sink", []), *options], plain)
        self.port = tls if load.get("tls") else plain
        if load.get("delay"):
            self.port = free_port()
            self.start([*pin, "./proxy", str(self.port), str(plain), str(load["delay"])], self.port)

    def counters(self):
        """since the last time they were read"""
        with socket.create_connection(("127.0.0.1", self.stat)) as one:
            return json.loads(one.makefile().read())


def run(argv, env, prefix=()):
    """one run: wall, cpu (seconds), peak (KB) and what it said where it failed"""
    out = "run.out"
    if os.path.exists(out):
        os.unlink(out)
    pin = ["taskset", "-c", "0"] if shutil.which("taskset") else []
    process = subprocess.Popen([*pin, "./runner", out, *prefix, *argv], env={**os.environ, **env}, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, start_new_session=True)
    try:
        said = process.communicate(timeout=LIMIT)[1]
    except BaseException as reason:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not isinstance(reason, subprocess.TimeoutExpired):
            raise
        return dict(failed="took too long")
    status, wall, user, system, peak = open(out).read().split()
    return dict(failed=said.decode(errors="replace")[-300:] or status if int(status) else None, wall=float(wall),
                cpu=float(user) + float(system), peak=int(peak))


class Failed(Exception):
    pass


def measure(sink, client, load, count, prefix=()):
    sink.counters()
    got = run(command(client, sink.port, count, load.get("recipients", 1)), client.env, prefix)
    if got["failed"]:
        raise Failed(got["failed"])
    got["counters"] = sink.counters()
    if got["counters"]["msgs"] < count:
        raise Failed(f"{got['counters']['msgs']} of {count} messages arrived")
    return got


def scaled(client, scale):
    few, *many = client.counts
    return (few, max(few + 1, int(many[0] * scale))) if many else (0, few)


def timed(load, clients, rounds, scale):
    """client -> list of one dictionary a round"""
    rows = {client: [] for client in clients}
    with Sink(load) as sink:
        for number in range(rounds):
            for client in clients:
                few, many = scaled(client, scale)
                try:
                    low = measure(sink, client, load, few) if few else dict(wall=0, cpu=0, peak=0)
                    high = measure(sink, client, load, many)
                except Failed as reason:
                    print(f"skipped: {client.name}: {reason}", flush=True)
                    rows[client] = None
                    continue
                if rows[client] is None:
                    continue
                per = 1 if load.get("whole") else many - few
                rows[client].append(dict(round=number, wall=(high["wall"] - low["wall"]) / per, cpu=(high["cpu"] - low["cpu"]) / per,
                                         peak=high["peak"]))
    return rows


def counted(load, clients, what):
    """client -> system calls, waits or instructions a message, by the difference of two runs"""
    found = {}
    with Sink(load, *(["-f", "3"] if what == "waits" else [])) as sink:
        for client in clients:
            prefix = {
                "waits": [],
                "syscalls": ["strace", "-f", "-c", "-o", "strace.out"],
                "instructions": ["valgrind", "--tool=callgrind", "--callgrind-out-file=callgrind.out"],
            }[what]
            few, many = (300, 400) if client.argv[0] == "node" else (10, 20) if load.get("tls") and "cold" in client.argv else (100, 200)
            if "WINDOW" in client.env or client.env.get("PIPELINE") == "chunk":
                few, many = 1000, 2000
            try:
                values = []
                for count in (few, many):
                    got = measure(sink, client, load, count, prefix)
                    values.append(got["counters"]["flights"] if what == "waits" else read_count(what))
                found[client] = (values[1] - values[0]) / (many - few)
            except Failed as reason:
                print(f"skipped: {what} of {client.name}: {reason}", flush=True)
    return found


def read_count(what):
    if what == "syscalls":
        total = [line.split() for line in open("strace.out") if line.rstrip().endswith("total")][-1]
        return int(total[3] if len(total) > 4 else total[2])
    return int(re.search(r"^(?:summary|totals): (\d+)", open("callgrind.out").read(), re.M).group(1))


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def ratio(own, other, key):
    """median over the rounds of own over other"""
    if not (own and other):
        return None
    by_round = {row["round"]: row[key] for row in other}
    return median(row[key] / by_round[row["round"]] for row in own if by_round.get(row["round"], 0) > 0)


def bench(name, load, options):
    clients = []
    for client in load["clients"]:
        reason = absent(client)
        if reason:
            print(f"skipped: {client.name}: {reason}", flush=True)
        else:
            clients.append(client)
    rows = timed(load, clients, options.rounds, options.scale)
    clients = [client for client in clients if rows[client]]
    counts = {}
    if name in ("small", "small-tls", "cold"):
        for what, program in (("waits", None), ("syscalls", "strace"), ("instructions", "valgrind")):
            if what == "instructions" and name != "small":
                continue
            if program and not shutil.which(program):
                print(f"skipped: {what}: {program} is not there", flush=True)
                continue
            asked = [c for c in clients if not (what == "instructions" and c.argv[0] in ("node", "python3", "smtp-source"))]
            counts[what] = counted(load, asked, what)
    measure_by = next((client for client in clients if client.kind == FLOOR), None)
    peers = [client for client in clients if client.kind == PEER]
    best = min(peers, key=lambda client: median(row["wall"] for row in rows[client]), default=None)
    done = []
    for client in clients:
        got = rows[client]
        wall = median(row["wall"] for row in got)
        done.append(dict(
            client=client.name, kind=client.kind, wall=wall, cpu=median(row["cpu"] for row in got), peak_kb=median(row["peak"] for row in got),
            mb_per_second=25 / wall if load.get("big") else None,
            to_floor=ratio(got, rows.get(measure_by), "wall"), cpu_to_floor=ratio(got, rows.get(measure_by), "cpu"),
            to_best_peer=ratio(got, rows.get(best), "wall"),
            **{what: counts[what].get(client) for what in counts}))
    return dict(name=name, title=load["title"], best_peer=best and best.name, rows=done)


def number(value, form="{:.3g}"):
    return "-" if value is None else form.format(value)


def seconds(value):
    if value is None:
        return "-"
    return f"{value * 1e6:.1f} us" if value < 0.002 else f"{value * 1e3:.1f} ms" if value < 0.5 else f"{value:.2f} s"


COLUMNS = [
    ("time", lambda row: f"{row['mb_per_second']:.0f} MB/s" if row["mb_per_second"] else seconds(row["wall"])),
    ("/floor", lambda row: number(row["to_floor"], "{:.2f}")),
    ("/best peer", lambda row: number(row["to_best_peer"], "{:.2f}")),
    ("client CPU", lambda row: seconds(row["cpu"])),
    ("/floor", lambda row: number(row["cpu_to_floor"], "{:.2f}")),
    ("waits", lambda row: number(row.get("waits"), "{:.2f}")),
    ("syscalls", lambda row: number(row.get("syscalls"), "{:.1f}")),
    ("instructions", lambda row: number(row.get("instructions"), "{:,.0f}")),
    ("peak", lambda row: f"{row['peak_kb'] / 1024:.1f} MB"),
]


def show(results):
    lines = []
    for result in results:
        lines.append([f"{result['title']}"] + [title for title, _ in COLUMNS])
        lines += [["  " + row["client"]] + [cell(row) for _, cell in COLUMNS] for row in result["rows"]]
        lines.append([""])
    widths = [max(len(line[i]) for line in lines if len(line) > i) for i in range(len(COLUMNS) + 1)]
    for line in lines:
        print("  ".join([line[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:])]).rstrip())


def data():
    """the messages, the attachment and the certificate, once"""
    os.makedirs("data", exist_ok=True)
    lines = "".join(f"Line {i:02d} of a small test message, as people write them to each other.\r\n" for i in range(11))
    head = ("From: Alice Example <a@example.com>\r\nTo: Bob Example <b@example.net>\r\nSubject: Quarterly report, small test message\r\n"
            "Date: Sun, 23 Nov 2025 17:00:00 +0000\r\nMessage-ID: <0123456789abcdef@example.com>\r\n\r\n")
    lines += "x" * (1024 - len(head) - len(lines) - 2) + "\r\n"
    open("data/small.eml", "w", newline="").write(head + lines)
    open("data/small.txt", "w", newline="").write(lines.replace("\r\n", "\n"))
    if not os.path.exists("data/att.bin"):
        open("data/att.bin", "wb").write(random.Random(1).randbytes(25_000_000))
    if not os.path.exists("cert.pem"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", "key.pem",
                        "-out", "cert.pem"], check=True, stderr=subprocess.DEVNULL)


def machine():
    cpu = re.search(r"^model name\s*:\s*(.*)$", open("/proc/cpuinfo").read(), re.M)
    return dict(cpu=cpu.group(1) if cpu else platform.processor(), cpus=os.cpu_count(), kernel=platform.release(), lua=LUA,
                date=datetime.date.today().isoformat())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", help="which; default all: " + " ".join(workloads()))
    parser.add_argument("-r", dest="rounds", type=int, default=3, help="rounds; default 3")
    parser.add_argument("-x", dest="scale", type=float, default=1, help="of the numbers of messages")
    parser.add_argument("-o", dest="json", default="bench.json")
    parser.add_argument("-c", dest="svg", default="bench.svg")
    options = parser.parse_args()
    loads = workloads()
    for name in options.workloads:
        if name not in loads:
            parser.error(f"no workload {name}; there are {' '.join(loads)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    data()
    results = []
    for name in options.workloads or loads:
        print(f"== {loads[name]['title']}", flush=True)
        results.append(bench(name, loads[name], options))
    print()
    show(results)
    report = dict(machine=machine(), workloads=results)
    with open(options.json, "w") as out:
        json.dump(report, out, indent=1)
    with open(options.svg, "w") as out:
        out.write(chart.draw(report))
    print(f"written: {os.path.abspath(options.json)}, {os.path.abspath(options.svg)}")


main()
