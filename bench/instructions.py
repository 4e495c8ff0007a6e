#!/usr/bin/env python3
"""Counts what a call does: its instructions, its heap allocations and its system calls, which no busy machine changes.

    instructions.py                     counts, and compares with instructions.json
    instructions.py --write             counts, and writes instructions.json
    instructions.py --profile SCHEME    prints the functions that the instructions of a call over http or https are in

`make bench-instructions` builds what this needs. A figure is what 1,200 calls on one kept connection take more than
200, divided by 1,000. Instructions are those that valgrind's callgrind sees, allocations those that its memcheck sees,
and system calls those that it passes on. libcurl and a bare socket are counted beside.

Ends with 1 when a figure of this library is more than 5 % above the one in instructions.json, or when it takes more
instructions than libcurl. Without valgrind nothing is counted, without libcurl's headers libcurl is not, and on another
kind of processor nothing is compared: all three are failures where CI is "true".
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

HERE = Path(__file__).resolve().parent
TOOLS = HERE.parent / "target" / "bench-tools"
COMMITTED = HERE / "instructions.json"
SCHEMES = ("http", "https")
CLIENTS = ("arctos", "curl", "raw")
FEW, MANY = 200, 1200
BODY_BYTES = 311
# The figures of a call, and the decimals that they are rounded to, if any.
FIGURES = {"instructions": None, "allocations": 2, "system_calls": 2}
SLACK = 1.05
# How many functions of a profile are printed.
FUNCTIONS = 40
# Long enough for a busy machine, short enough to notice that something hangs.
PATIENCE = 120
# Milliseconds that each answer waits: else a client, which valgrind makes slow, would wait for some and not for others.
PAUSE = 2
# The kernel answers these inside the process, but for valgrind, which hides that from programs.
NO_SYSTEM_CALLS = {"clock_gettime", "getcpu", "gettimeofday", "time"}
# A `rep stosb` counts as one instruction for each byte, while processors take blocks: without it glibc's loops count as
# what they are. Code is chosen by nothing else that differs from machine to machine with AVX2: valgrind hides what is
# newer. Nor may a proxy or options of valgrind come from the environment.
ENVIRONMENT = {"PATH": os.environ.get("PATH", os.defpath), "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-ERMS"}


def fail(what: str) -> NoReturn:
    sys.exit(f"instructions.py: {what}")


def skip(what: str) -> None:
    """Says that something is skipped, which is a failure where CI is "true"."""
    print(f"skipped: {what}", file=sys.stderr)
    if os.environ.get("CI") == "true":
        sys.exit(1)


def built(program: str) -> bool:
    return (TOOLS / f"bench-{program}").exists()


@contextlib.contextmanager
def served(folder: Path) -> Iterator[dict[str, list[str]]]:
    """A server, and for each scheme the arguments that lead a client to it."""
    command: list[str | Path] = [TOOLS / "bench-server", "--pause-ms", str(PAUSE), folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            fail("the server does not start")
        about = json.loads(line)
        yield {
            "http": [f"http://127.0.0.1:{about['http']}", "-"],
            "https": [f"https://127.0.0.1:{about['https']}", about["ca_file"]],
        }


class Run:
    """A client that has made so many calls under a tool of valgrind's."""

    def __init__(self, client: str, server: list[str], calls: int, tool: list[str], folder: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        log = self.folder / "log"
        command: list[str | Path] = ["valgrind", f"--log-file={log}", *tool, TOOLS / f"bench-{client}"]
        try:
            done = subprocess.run(
                [*command, *server, "1", str(BODY_BYTES), "keep"],
                input=f"count {calls}\n",
                cwd=self.folder,
                env=ENVIRONMENT,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
        except subprocess.TimeoutExpired:
            fail(f"bench-{client} under valgrind has not ended after {PATIENCE} s")
        if done.returncode != 0:
            fail(f"bench-{client} under valgrind ended with {done.returncode}: {done.stderr.strip()}")
        self.log = log.read_text()
        self.version: str = json.loads(done.stdout.splitlines()[0])["version"]


class Callgrind(Run):
    def __init__(self, client: str, server: list[str], calls: int, folder: Path) -> None:
        tool = ["--tool=callgrind", "--callgrind-out-file=callgrind.out", "--trace-syscalls=yes"]
        super().__init__(client, server, calls, tool, folder)
        self.out = self.folder / "callgrind.out"

    def instructions(self) -> int:
        return int(found(r"^totals: (\d+)$", self.out.read_text()))

    def system_calls(self) -> int:
        # A call that waits has a second line for its end, which does not name it.
        names = re.findall(r"^SYSCALL\[[^]]*\]\([ \d]*\) sys_(\w+)", self.log, re.MULTILINE)
        return sum(name not in NO_SYSTEM_CALLS for name in names)

    def functions(self) -> dict[str, int]:
        """The instructions of each function, without those that it calls."""
        command: list[str | Path] = ["callgrind_annotate", "--threshold=100", "--inclusive=no", "--auto=no", self.out]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        functions: dict[str, int] = {}
        for count, where in re.findall(r"^ *([\d,]+) \([ \d.]+%\)  (\S.*:.*)$", printed, re.MULTILINE):
            # The paths of files and libraries say nothing.
            name = re.sub(r"^\S*?:|\[.*/|\]$", "", where)
            functions[name] = functions.get(name, 0) + int(count.replace(",", ""))
        return functions


class Memcheck(Run):
    def __init__(self, client: str, server: list[str], calls: int, folder: Path) -> None:
        super().__init__(client, server, calls, ["--tool=memcheck", "--undef-value-errors=no"], folder)

    def allocations(self) -> int:
        return int(found(r"total heap usage: ([\d,]+) allocs", self.log).replace(",", ""))


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        fail(f"valgrind does not tell {pattern!r}")
    return match.group(1)


class Counted(NamedTuple):
    """What a call through a client takes."""

    version: str
    figures: dict[str, float]


def count(client: str, server: list[str], folder: Path) -> Counted:
    few, many = (Callgrind(client, server, calls, folder) for calls in (FEW, MANY))
    few_blocks, many_blocks = (Memcheck(client, server, calls, folder) for calls in (FEW, MANY))
    more = {
        "instructions": many.instructions() - few.instructions(),
        "allocations": many_blocks.allocations() - few_blocks.allocations(),
        "system_calls": many.system_calls() - few.system_calls(),
    }
    return Counted(many.version, {name: round(more[name] / (MANY - FEW), digits) for name, digits in FIGURES.items()})


def count_all(clients: list[str]) -> dict[str, dict[str, Counted]]:
    """By scheme and client."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = stack.enter_context(served(folder))
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(os.cpu_count()))
        runs = {
            scheme: {client: pool.submit(count, client, servers[scheme], folder) for client in clients}
            for scheme in SCHEMES
        }
        return {scheme: {client: run.result() for client, run in row.items()} for scheme, row in runs.items()}


def print_table(counted: dict[str, dict[str, Counted]]) -> None:
    print(f"{'a call':7}{'through':32}{'instructions':>14}{'as libcurl':>12}{'allocations':>13}{'system calls':>14}")
    for scheme, row in counted.items():
        for client in row.values():
            figures = client.figures
            ratio = f"{figures['instructions'] / row['curl'].figures['instructions']:.2f}" if "curl" in row else ""
            print(
                f"{scheme:7}{client.version:32}{figures['instructions']:14,}{ratio:>12}{figures['allocations']:13.2f}"
                f"{figures['system_calls']:14.2f}"
            )


def machine() -> str:
    """What instructions are chosen by, as far as valgrind lets programs see it."""
    with contextlib.suppress(OSError):
        if platform.machine() == "x86_64" and " avx2 " in Path("/proc/cpuinfo").read_text():
            return "x86_64 with AVX2"
    return platform.machine()


def tools() -> dict[str, str]:
    """What the figures depend on, besides the library."""
    return {
        "cpu": machine(),
        "libc": " ".join(platform.libc_ver()),
        "rustc": printed_by("rustc"),
        "valgrind": printed_by("valgrind"),
    }


def printed_by(tool: str) -> str:
    if not shutil.which(tool):
        return "not found"
    return subprocess.run([tool, "--version"], check=True, capture_output=True, text=True).stdout.strip()


def write(counted: dict[str, dict[str, Counted]]) -> None:
    figures = {scheme: row["arctos"].figures for scheme, row in counted.items()}
    COMMITTED.write_text(json.dumps({"measured_with": tools(), **figures}, indent=4) + "\n")


def compare(counted: dict[str, dict[str, Counted]]) -> list[str]:
    """What is worse than it was."""
    committed = json.loads(COMMITTED.read_text())
    here, there = tools(), committed["measured_with"]
    if here["cpu"] != there["cpu"]:
        skip(f"{COMMITTED.name} was counted on {there['cpu']}, and this is {here['cpu']}")
        return []
    worse = []
    for scheme, row in counted.items():
        for name, now in row["arctos"].figures.items():
            was = committed[scheme][name]
            if now > was * SLACK:
                worse.append(
                    f"{scheme}: {name}: {now:,} is more than {SLACK - 1:.0%} above {was:,} of {COMMITTED.name}"
                )
            elif now * SLACK < was:
                print(f"{scheme}: {name}: {now:,} is less than {was:,}: `instructions.py --write` keeps it")
    if worse:
        others = [tool for tool in here if here[tool] != there[tool]]
        worse += [f"{tool}: {here[tool]}, and {there[tool]} for {COMMITTED.name}" for tool in others]
    return worse


def more_than_libcurl(counted: dict[str, dict[str, Counted]]) -> list[str]:
    worse = []
    for scheme, row in counted.items():
        own = row["arctos"].figures["instructions"]
        if "curl" in row and own > row["curl"].figures["instructions"]:
            worse.append(f"{scheme}: instructions: {own:,} is more than libcurl takes")
    return worse


def profile(scheme: str) -> None:
    with tempfile.TemporaryDirectory() as name, served(Path(name)) as servers:
        few, many = (Callgrind("arctos", servers[scheme], calls, Path(name)).functions() for calls in (FEW, MANY))
    each = {function: (total - few.get(function, 0)) / (MANY - FEW) for function, total in many.items()}
    whole = sum(each.values())
    print(f"{'a call':>9}")
    print(f"{whole:9,.0f}         all")
    for function in sorted(each, key=each.__getitem__, reverse=True)[:FUNCTIONS]:
        print(f"{each[function]:9,.0f} {each[function] / whole:7.1%} {function}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Counts what a call does.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help=f"write {COMMITTED.name}")
    what.add_argument("--profile", choices=SCHEMES, help="print the functions that the instructions are in")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        skip("counting instructions: valgrind is not installed (Debian package valgrind)")
        return 0
    if not (built("arctos") and built("raw") and built("server")):
        fail("nothing is built: run `make bench-tools` first")
    if options.profile:
        profile(options.profile)
        return 0
    if not built("curl"):
        skip("libcurl: its headers are not installed (Debian package libcurl4-openssl-dev)")
    counted = count_all([client for client in CLIENTS if built(client)])
    print_table(counted)
    if options.write:
        write(counted)
    worse = more_than_libcurl(counted) + ([] if options.write else compare(counted))
    for line in worse:
        print(line, file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
