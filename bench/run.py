#!/usr/bin/env python3
"""Measures what a call costs through libarctos, libcurl, a raw socket and Python clients, against one server.

    run.py            prints the figures, and leaves them in target/bench: results.json, bench.svg
    run.py --quick    few rounds: whether everything runs
    run.py --write    puts them in their places too: bench/results.json, bench/README.md, docs/bench.svg

`make bench` builds the programs before. BENCH_ROUNDS (15) is the number of rounds, BENCH_CALLS the calls of a thread in
a turn of the first table: without it, as many as fit into a turn's time. Exit code 0 when all was measured, whatever the
figures are.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import resource
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import picture
import tables

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
OUT = ROOT / "target" / "bench"
TOOLS = ROOT / "target" / "bench-tools"
LIBRARY = ROOT / "target" / "release" / "libarctos.so"
CC = os.environ.get("CC", "cc")

NATIVE = ["libarctos", "libcurl", "raw"]
PYTHON = ["arctos", "requests", "httpx", "pycurl"]
TRANSPORTS = ["http", "https"]
HOSTS = ["127.0.0.1", "localhost"]

TASK_BYTES = 311
# The authorities of a usual system, and one's own.
AUTHORITIES = 145
# Nanoseconds. Where threads share the processors, a turn takes several of the scheduler's slices.
TURN, TURN_OF_THREADS = 40_000_000, 120_000_000
# Calls of a turn. A closed connection keeps its port for a minute.
LEAST, MOST_FRESH = 10, 100
MANY, MANY_THREADS = 10_000, 8
# Seconds.
PATIENCE = 60


class Failure(Exception):
    """Why the figures cannot be had."""


def halves() -> tuple[set[int], set[int]]:
    """The processors of the server and of clients of one thread, and those of clients of several."""
    if not hasattr(os, "sched_getaffinity"):
        return set(), set()
    processors = sorted(os.sched_getaffinity(0))
    middle = len(processors) // 2
    return set(processors[:middle]), set(processors[middle:])


SERVERS, THREADS = halves()


class Extent(NamedTuple):
    """How much is measured."""

    rounds: int
    turn_calls: int | None
    processes: int


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def output(*command: str | Path) -> str:
    """What a command prints; nothing where it cannot be run."""
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


# What is built.


def install(left_out: dict[str, str]) -> Path:
    """Makes the environment of the Python clients, and gives its interpreter."""
    requirements = HERE / "requirements.txt"
    wanted = dict(re.findall(r"^([\w.-]+)==(\S+)$", requirements.read_text(encoding="utf-8"), re.MULTILINE))
    python = OUT / "venv" / "bin" / "python"
    if not output(python, "-m", "pip", "--version"):
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", OUT / "venv"])
        if made.returncode != 0:
            left_out.update(dict.fromkeys(PYTHON[1:], "python3 makes no environment (Debian package python3-venv)"))
            return Path(sys.executable)
    for name in PYTHON[1:]:
        found = f"import importlib.metadata; print(importlib.metadata.version({name!r}))"
        if output(python, "-c", found) == wanted[name]:
            continue
        pip: list[str | Path] = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
        ]
        if subprocess.run([*pip, "--constraint", requirements, f"{name}=={wanted[name]}"]).returncode != 0:
            left_out[name] = f"pip cannot install {name} {wanted[name]}"
    return python


def programs(left_out: dict[str, str]) -> dict[str, list[str]]:
    """The command of each client program."""
    native = {"libarctos": "bench-arctos", "libcurl": "bench-curl", "raw": "bench-raw"}
    commands = {name: [str(TOOLS / program)] for name, program in native.items()}
    if not Path(*commands["libarctos"]).exists():
        raise Failure(f"{TOOLS} has no programs: `make bench` builds them")
    if not Path(*commands["libcurl"]).exists():
        left_out["libcurl"] = "its headers are not installed (Debian package libcurl4-openssl-dev)"
        del commands["libcurl"]
    commands["many"] = [str(TOOLS / "bench-many")]
    python = install(left_out)
    for name in PYTHON:
        if name not in left_out:
            commands[name] = [str(python), str(HERE / "clients" / "python.py"), name]
    return commands


def environment() -> dict[str, str]:
    """Without what would lead a client elsewhere, or have it trust others."""
    strange = re.compile(
        r".*_proxy|curl_ca_bundle|requests_ca_bundle|ssl_cert_(file|dir)|sslkeylogfile|arctos_library", re.I
    )
    kept = {name: value for name, value in os.environ.items() if not strange.fullmatch(name)}
    return {**kept, "PYTHONPATH": str(ROOT / "bindings" / "python")}


def write_authorities(folder: Path, ours: Path, left_out: dict[str, str]) -> Path | None:
    """A file of as many authorities as a system has, the server's last."""
    system = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    text = Path(system).read_text(encoding="utf-8") if Path(system).exists() else ""
    others = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", text, re.DOTALL)
    others = others[: AUTHORITIES - 1]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", os.devnull]
    for number in range(len(others), AUTHORITIES - 1):
        made = output("openssl", "req", "-x509", *key, "-subj", f"/CN=Authority {number}", "-days", "30")
        if not made:
            left_out[f"a file of {AUTHORITIES} authorities"] = "the system has fewer, and openssl makes none"
            return None
        others.append(made + "\n")
    path = folder / "authorities.pem"
    path.write_text("".join(others) + ours.read_text(encoding="utf-8"), encoding="utf-8")
    return path


# What runs.


class Process:
    """A program that reads commands and answers each with a line of JSON; ends with its input."""

    def __init__(self, command: list[str], processors: set[int]) -> None:
        pipe = subprocess.PIPE
        self.name = Path(command[0]).name
        ours = os.sched_getaffinity(0) if processors else set()
        try:
            # A process runs where the one that started it did.
            if processors:
                os.sched_setaffinity(0, processors)
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment())
        finally:
            if processors:
                os.sched_setaffinity(0, ours)
        self.first = self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise Failure(f"{self.name} ended with exit code {self.process.wait(PATIENCE)}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, command: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.returncode != 0:
            raise Failure(f"{self.name} ended with exit code {self.process.returncode}")


def at(values: Sequence[float], part: float) -> float:
    """The value that a part of them is below."""
    return sorted(values)[round((len(values) - 1) * part)]


class Turn(NamedTuple):
    """The figures of one client in one round."""

    p50: float
    p99: float
    cpu: float
    rate: float


class Client:
    """A client program with its figures."""

    def __init__(self, name: str, command: list[str], processors: set[int]) -> None:
        self.name = name
        self.process = Process(command, processors)
        self.version: str = self.process.first["version"]
        self.setup: int = self.process.first["setup_ns"]
        self.each: list[int] = []
        self.turns: list[Turn] = []
        self.last: dict[str, Any] = {}

    def call(self, count: int) -> dict[str, Any]:
        """One round of so many calls a thread, which counts nowhere yet."""
        self.last = self.process.ask(f"calls {count}")
        return self.last

    def take_turn(self, count: int, calls: int) -> None:
        """One round of so many calls a thread, `calls` in all."""
        told = self.call(count)
        each = told["each_ns"]
        self.turns.append(Turn(at(each, 0.5), at(each, 0.99), told["cpu_ns"] / calls, calls / told["wall_ns"] * 1e9))
        self.each += each

    def figures(self) -> dict[str, float]:
        return {
            "p50_us": round(at(self.each, 0.5) / 1000, 2),
            "p99_us": round(at(self.each, 0.99) / 1000, 2),
            "cpu_us": round(statistics.median(turn.cpu for turn in self.turns) / 1000, 2),
            "calls_per_s": round(statistics.median(turn.rate for turn in self.turns)),
            "rss_kib": self.last["rss_kib"],
            "peak_rss_kib": self.last["peak_rss_kib"],
        }


def ratio(some: Client, other: Client, figure: str) -> float:
    """How many times as much, round by round; the median of the rounds."""
    ratios: list[float] = [getattr(one, figure) / getattr(two, figure) for one, two in zip(some.turns, other.turns)]
    return round(statistics.median(ratios), 3)


class Bench:
    """All that is measured, and what it is measured with."""

    def __init__(self, extent: Extent, commands: dict[str, list[str]], folder: Path, left_out: dict[str, str]) -> None:
        self.extent, self.commands, self.left_out = extent, commands, left_out
        self.server = Process([str(TOOLS / "bench-server"), str(folder)], SERVERS)
        self.ports = {transport: self.server.first[transport] for transport in TRANSPORTS}
        self.ca_file = Path(self.server.first["ca_file"])
        self.authorities = {1: self.ca_file, AUTHORITIES: write_authorities(folder, self.ca_file, left_out)}
        self.versions: dict[str, str] = {}
        self.compared: list[dict[str, Any]] = []

    def names(self, among: list[str]) -> list[str]:
        return [name for name in among if name in self.commands]

    def start(
        self,
        name: str,
        transport: str,
        *,
        host: str = HOSTS[0],
        prefix: str = "",
        ca_file: Path | None = None,
        threads: int = 1,
        body: int = TASK_BYTES,
        keep: bool = True,
        clients: int = 1,
    ) -> Client:
        url = f"{transport}://{host}:{self.ports[transport]}{prefix}"
        trusted = str(ca_file or self.ca_file) if transport == "https" else "-"
        command = [*self.commands[name], url, trusted, str(threads), str(body), "keep" if keep else "fresh"]
        processors = SERVERS if threads == 1 and name != "many" else THREADS
        client = Client(name, command + ([str(clients)] if clients > 1 else []), processors)
        self.versions[name] = client.version
        return client

    def interleave(
        self, clients: list[Client], threads: list[int], *, calls: int | None = None, most: int | None = None
    ) -> None:
        """Gives each client a turn in every round, of so many calls or of as many as fit. Another one begins each time,
        so that a machine that gets slower favours none. Closes them."""
        counts = []
        for client, many in zip(clients, threads):
            client.call(LEAST)
            told = client.call(LEAST)
            turn = TURN if many == 1 else TURN_OF_THREADS
            count = calls or max(LEAST, turn * LEAST // told["wall_ns"])
            counts.append(min(count, most or count))
        for number in range(self.extent.rounds):
            for index in range(len(clients)):
                place = (number + index) % len(clients)
                clients[place].take_turn(counts[place], counts[place] * threads[place])
        for client in clients:
            client.process.close()

    def compare(self, what: str, figure: float, *, at_most: float | None = None, at_least: float | None = None) -> None:
        """Notes a figure that is compared with another client's or with a target."""
        line: dict[str, Any] = {"what": what, "figure": figure, "at_most": at_most, "at_least": at_least}
        if at_most is not None:
            line["reached"] = figure <= at_most
        if at_least is not None:
            line["reached"] = figure >= at_least
        self.compared.append(line)

    # Calls over kept connections.

    def calls(self) -> list[dict[str, Any]]:
        lines = []
        for transport in TRANSPORTS:
            for host in HOSTS:
                for threads in (1, 8):
                    say(f"calls: {transport}, {host}, threads: {threads}")
                    names = self.names(NATIVE + PYTHON)
                    clients = [self.start(name, transport, host=host, threads=threads) for name in names]
                    self.interleave(clients, [threads] * len(clients), calls=self.extent.turn_calls)
                    where = {"transport": transport, "host": host, "threads": threads}
                    lines += [{**where, "client": client.name, **client.figures()} for client in clients]
                    self.compare_calls({client.name: client for client in clients}, transport, host, threads)
        return lines

    def compare_calls(self, clients: dict[str, Client], transport: str, host: str, threads: int) -> None:
        https = transport == "https"
        where = f"{transport}, {host}, " + ("1 thread" if threads == 1 else f"{threads} threads")

        def compare(one: str, other: str, figure: str, word: str, **target: float) -> None:
            if one in clients and other in clients:
                times = ratio(clients[one], clients[other], figure)
                self.compare(f"{where}: {word}, {tables.name(one)} as {other}", times, **target)

        if threads == 1:
            compare("libarctos", "libcurl", "p50", "p50", at_most=0.60 if https else 0.75)
            compare("libarctos", "libcurl", "cpu", "CPU", at_most=0.50 if https else 0.65)
            compare("libarctos", "raw", "p50", "p50", at_most=1.5)
            compare("arctos", "pycurl", "p50", "p50", at_most=1.0)
            compare("arctos", "requests", "p50", "p50", at_most=0.125)
            compare("arctos", "httpx", "p50", "p50")
        else:
            compare("libarctos", "libcurl", "rate", "calls/s", at_least=1.5)
            compare("libarctos", "libcurl", "p99", "p99", at_most=1.0)
            compare("arctos", "pycurl", "rate", "calls/s")
            compare("arctos", "requests", "rate", "calls/s")

    # The first call of a process, and each on a connection of its own.

    def first_calls(self) -> list[dict[str, Any]]:
        lines = []
        for authorities, ca_file in self.authorities.items():
            if ca_file is None:
                continue
            say(f"first calls: trusted authorities: {authorities}")
            names = self.names(NATIVE + PYTHON)
            setups: dict[str, list[float]] = {name: [] for name in names}
            wholes: dict[str, list[float]] = {name: [] for name in names}
            # One that does not count: what is read from the disk for the first time.
            for number in range(-1, self.extent.processes):
                for index in range(len(names)):
                    client = self.start(names[(number + index) % len(names)], "https", ca_file=ca_file)
                    whole = client.setup + client.call(1)["each_ns"][0]
                    client.process.close()
                    if number >= 0:
                        setups[client.name].append(client.setup)
                        wholes[client.name].append(whole)
            for name in names:
                line = {"authorities": authorities, "client": name}
                line["setup_us"] = round(statistics.median(setups[name]) / 1000, 1)
                line["whole_us"] = round(statistics.median(wholes[name]) / 1000, 1)
                lines.append(line)
            for other, at_most in (("libcurl", 0.5), ("raw", None)):
                if other in names:
                    times = statistics.median(one / two for one, two in zip(wholes["libarctos"], wholes[other]))
                    what = f"https, first call of a process, authorities: {authorities}: libarctos as {other}"
                    self.compare(what, round(times, 3), at_most=at_most)
        return lines

    def fresh_calls(self) -> list[dict[str, Any]]:
        lines = []
        for transport in TRANSPORTS:
            say(f"calls on connections of their own: {transport}")
            clients = [self.start(name, transport, keep=False) for name in self.names(NATIVE + PYTHON)]
            self.interleave(clients, [1] * len(clients), most=MOST_FRESH)
            lines += [{"transport": transport, "client": client.name, **client.figures()} for client in clients]
            ours, *others = clients
            for other in others:
                if other.name in NATIVE:
                    what = f"{transport}, each call on a new connection: p50, libarctos as {other.name}"
                    self.compare(what, ratio(ours, other, "p50"))
        return lines

    # Memory and size.

    def memory(self) -> list[dict[str, Any]]:
        lines = []
        for connections, target in ((1, 5.0), (8, 6.0)):
            say(f"memory: connections: {connections}")
            resident: dict[str, float] = {}
            for name in self.names(NATIVE):
                client = self.start(name, "https", threads=connections)
                client.call(100)
                client.process.close()
                resident[name] = round(client.last["rss_kib"] * 1024 / 1e6, 2)
                lines.append({"connections": connections, "client": name, "rss_mb": resident[name]})
            what = f"memory, TLS connections: {connections}"
            self.compare(f"{what}: MB, libarctos", resident["libarctos"], at_most=target)
            if "libcurl" in resident:
                times = round(resident["libarctos"] / resident["libcurl"], 3)
                self.compare(f"{what}: libarctos as libcurl", times, at_most=1.0)
        return lines

    def size(self, folder: Path) -> dict[str, Any]:
        stripped = folder / "libarctos.so"
        shutil.copy(LIBRARY, stripped)
        if not shutil.which("strip"):
            self.left_out["size"] = "strip is not installed (Debian package binutils)"
            return {"bytes": {}, "needed": []}
        subprocess.run(["strip", stripped], check=True)
        needed = re.findall(r"\(NEEDED\).*\[(.*)\]", output("readelf", "-d", LIBRARY))
        sizes = {"libarctos.so": stripped.stat().st_size}
        self.compare("libarctos.so, stripped: MB", round(sizes["libarctos.so"] / 1e6, 2), at_most=3.9)
        if "libcurl" in self.commands:
            linked = output("ldd", self.commands["libcurl"][0])
            for name, path in re.findall(r"((?:libcurl|libssl|libcrypto)\.so\S*) => (\S+)", linked):
                sizes[name] = Path(path).stat().st_size
        return {"bytes": sizes, "needed": needed}

    # How the cost grows.

    def grow(self, what: str, transport: str, points: list[int], given: str) -> list[dict[str, Any]]:
        """libarctos at each of some points of one quantity, interleaved."""
        say(f"growth: {what}, {transport}")

        def options(point: int) -> dict[str, Any]:
            return {"prefix": f"/answer-{point}"} if given == "prefix" else {given: point}

        clients = [self.start("libarctos", transport, **options(point)) for point in points]
        for client, point in zip(clients, points):
            if given == "clients":
                # Each has its connection before it counts.
                client.call(point)
        self.interleave(clients, points if given == "threads" else [1] * len(points))
        where = {"what": what, "transport": transport}
        return [{**where, "point": point, **client.figures()} for client, point in zip(clients, points)]

    def growth(self) -> list[dict[str, Any]]:
        lines = []
        for transport in TRANSPORTS:
            lines += self.grow("body, bytes", transport, [TASK_BYTES, 30_000, 3_000_000], "body")
            lines += self.grow("answer, bytes", transport, [100, 10_000, 1_000_000], "prefix")
            lines += self.grow("threads", transport, [1, 2, 4, 8, 16, 32, 64], "threads")
            lines += self.grow("clients", transport, [1, 10, 100, 1000], "clients")
        return lines

    def many(self) -> list[dict[str, Any]]:
        """Many appointments in one call, and as many calls by as many threads as that has connections."""
        lines = []
        for transport in TRANSPORTS:
            say(f"many: {transport}")
            one, threads = self.start("many", transport), self.start("libarctos", transport, threads=MANY_THREADS)
            turns = [(one, 1), (threads, MANY // MANY_THREADS)]
            for client, count in turns:
                client.call(count)
            for _ in range(self.extent.rounds):
                for client, count in turns:
                    client.take_turn(count, MANY)
                turns.reverse()
            times = ratio(one, threads, "rate")
            self.compare(f"{transport}, {MANY:,} appointments: calls/s, many as 8 threads", times, at_least=0.8)
            for client, how in ((one, "one arctos_task_add_many"), (threads, f"{MANY_THREADS} threads")):
                client.process.close()
                lines.append({"transport": transport, "how": how, "calls_per_s": client.figures()["calls_per_s"]})
        return lines

    def run(self, folder: Path) -> dict[str, Any]:
        measured = {
            "calls": self.calls(),
            "first_calls": self.first_calls(),
            "fresh_calls": self.fresh_calls(),
            "memory": self.memory(),
            "size": self.size(folder),
            "growth": self.growth(),
            "many": self.many(),
        }
        self.server.close()
        about = {"machine": machine(), "versions": self.versions, "left_out": self.left_out, **self.extent._asdict()}
        return {**about, **measured, "compared": self.compared}


def machine() -> dict[str, Any]:
    processor = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "commit": output("git", "describe", "--always", "--dirty", "--tags"),
        "processor": processor.group(1) if processor else platform.machine(),
        "processors": os.cpu_count(),
        "of_the_server": len(SERVERS),
        "kernel": re.split(r"[^\d.]", platform.release())[0],
        "rustc": output("rustc", "--version"),
        "cc": output(CC, "--version").partition("\n")[0],
        "python": f"{platform.python_version()} with {ssl.OPENSSL_VERSION}",
    }


def number_from(name: str) -> int | None:
    text = os.environ.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 100_000:
        raise Failure(f"{name} must be 1 to 100000")
    return int(text)


def write(results: dict[str, Any], text: str) -> None:
    """Puts figures, tables and picture in their places in the checkout."""
    shutil.copy(OUT / "results.json", HERE / "results.json")
    shutil.copy(OUT / "bench.svg", ROOT / "docs" / "bench.svg")
    readme = HERE / "README.md"
    begin, end = "<!-- results -->\n", "<!-- /results -->\n"
    before, _, rest = readme.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    readme.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--write", action="store_true", help="put the results in their places in the checkout")
    arguments = parser.parse_args()
    if arguments.quick and arguments.write:
        parser.error("what few rounds have measured is not kept")
    # A client with 1000 connections, and the server's ends of them.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        rounds, calls = number_from("BENCH_ROUNDS"), number_from("BENCH_CALLS")
        quick = arguments.quick
        extent = Extent(rounds or (2 if quick else 15), calls, 2 if quick else 25)
        left_out: dict[str, str] = {}
        OUT.mkdir(parents=True, exist_ok=True)
        commands = programs(left_out)
        with tempfile.TemporaryDirectory() as folder:
            results = Bench(extent, commands, Path(folder), left_out).run(Path(folder))
    except (Failure, OSError, subprocess.SubprocessError) as error:
        say(f"bench: {error}")
        return 1
    (OUT / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (OUT / "bench.svg").write_text(picture.draw(results), encoding="utf-8")
    text = tables.tables(results)
    print(text, end="")
    if arguments.write:
        write(results, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
