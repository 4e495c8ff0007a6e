#!/usr/bin/env python3
"""Shows the C and the Python caller at work against the sandbox, over http and https.

`make demo` builds what this needs and runs it. Ends with 0 when every program ended, and every
appointment was made or not made, as it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ROOT / "target" / "release"
TOKEN = "demo-token"
# Long enough for a busy machine, short enough to notice that something hangs.
PATIENCE = 60


class Case(NamedTuple):
    """One thing to show: the beginning of the number tells the sandbox how to behave."""

    title: str
    beginning: str
    exit_code: int
    made: bool
    # Options of the C and of the Python caller.
    options: tuple[str, str] | None = None
    # Whether Ctrl-C comes when the sandbox has the request.
    interrupt: bool = False


CASES = [
    Case("success", "demo", 0, True),
    Case("warning", "warn", 0, True),
    Case("refusal", "fail", 2, False),
    Case("a retry, logged", "busy-once", 0, True, ("-v", "--verbose")),
    Case("busy throughout", "busy", 2, False),
    Case("unknown outcome", "reset-after", 3, True),
    Case("not resent", "reset-once", 3, False),
    Case("server_dedupes", "reset-once-again", 0, True, ("-d", "--server-dedupes")),
    Case("Ctrl-C", "slow-once", 3, True, interrupt=True),
]


class Day(NamedTuple):
    """One start of the day of a branch with a journal."""

    title: str
    exit_code: int
    # Which of the numbers are made by then.
    made: tuple[bool, ...]
    # Which of the unknown ones the operator has found at the server, and which not.
    found: str | None = None
    missed: str | None = None


# What the branch wants: one is made, one is made and nobody hears of it, one is not made and nobody knows.
BRANCH = ("demo-day", "reset-after-day", "reset-once-day")
DAYS = [
    Day("with a journal", 3, (True, True, False)),
    Day("the day after", 3, (True, True, False)),
    Day("looked up", 0, (True, True, True), found="reset-after-day", missed="reset-once-day"),
    Day("all is known", 0, (True, True, True)),
]


class Failure(Exception):
    """Why the demonstration cannot go on."""


def build_c_caller(folder: Path, name: str) -> Path:
    """Compiles a C caller against the built library."""
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        raise Failure(f"there is no C compiler ({compiler}): install the package gcc")
    program = folder / name
    source = ROOT / "examples" / "c" / f"{name}.c"
    command: list[str | Path] = [compiler, "-o", program, source, "-I", ROOT / "include"]
    command += ["-L", LIBRARIES, "-larctos", "-pthread", f"-Wl,-rpath,{LIBRARIES}"]
    if subprocess.run(command).returncode != 0:
        raise Failure(f"{name}.c could not be compiled; `make build` builds the library that it needs")
    return program


class Sandbox:
    """A sandbox on a free port, stopped at the end of the with statement."""

    def __init__(self, program: Path, ca_file: Path | None) -> None:
        self.ca_file = ca_file
        command: list[str | Path] = [program, "--listen", "127.0.0.1:0", "--token", TOKEN]
        if ca_file is not None:
            command += ["--tls", "--ca-file", ca_file]
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        except OSError as error:
            raise Failure(f"the sandbox cannot be started: {error}; `make demo` builds it") from None

    def __enter__(self) -> Sandbox:
        try:
            assert self.process.stdout is not None
            line = self.process.stdout.readline()
            self.base_url: str = line.rpartition(" ")[2].strip()
            if not line.startswith("listening on "):
                raise Failure(f"the sandbox did not start: {line!r}")
            # It prints each appointment, and must not have to wait for a reader.
            self.drain = threading.Thread(target=self.process.stdout.read)
            self.drain.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        self.drain.join()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def transport(self) -> str:
        return self.base_url.partition(":")[0]

    def task_nums(self, out_task_num: str) -> list[str]:
        """The task numbers of the appointments that were made for a number of ours."""
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if self.ca_file is not None:
            context = ssl.create_default_context(cafile=str(self.ca_file))
            handlers.append(urllib.request.HTTPSHandler(context=context))
        url = self.base_url + "/sandbox/appointments"
        with urllib.request.build_opener(*handlers).open(url, timeout=PATIENCE) as answer:
            appointments: list[dict[str, Any]] = json.load(answer)["appointments"]
        return [made["task_num"] for made in appointments if made["out_task_num"] == out_task_num]


def c_command(program: Path, sandbox: Sandbox, case: Case, number: str) -> list[str]:
    ca_file = [] if sandbox.ca_file is None else [str(sandbox.ca_file)]
    options = [] if case.options is None else [case.options[0]]
    return [str(program), *options, sandbox.base_url, number, *ca_file]


def python_command(sandbox: Sandbox, case: Case, number: str) -> list[str]:
    ca_file = [] if sandbox.ca_file is None else ["--ca-file", str(sandbox.ca_file)]
    options = [] if case.options is None else [case.options[1]]
    program = ROOT / "examples" / "python" / "add_task.py"
    return [sys.executable, str(program), *options, "--base-url", sandbox.base_url, "--number", number, *ca_file]


def hear_interrupts() -> None:
    """Whoever started the demonstration may have it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(command: list[str], sandbox: Sandbox, case: Case, number: str) -> subprocess.CompletedProcess[str]:
    """Runs a caller to its end, and sends it Ctrl-C where that is to be shown."""
    environment = {**os.environ, "ARCTOS_TOKEN": TOKEN}
    # Both callers use the library that was built here.
    environment.pop("ARCTOS_LIBRARY", None)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=environment, stdout=pipe, stderr=pipe, text=True, preexec_fn=hear_interrupts
    ) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while case.interrupt and time.monotonic() < deadline:
                if sandbox.task_nums(number):
                    process.send_signal(signal.SIGINT)
                    break
                time.sleep(0.02)
            stdout, stderr = process.communicate(timeout=PATIENCE)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def start_day(program: Path, sandbox: Sandbox, day: Day, folder: Path) -> bool:
    """Starts a branch's day in its folder, prints the row, and tells whether all was as it should be."""
    numbers = [f"{beginning}-{sandbox.transport}" for beginning in BRANCH]
    task = {"business_id": 15, "task_type": "normal", "branch_code": 943, "room_type": "realtime", "video": True}
    tasks = [json.dumps({"out_task_num": number, **task}) for number in numbers]
    (folder / "tasks").write_text("\n".join(tasks), encoding="utf-8")
    answers: list[str] = []
    if day.found is not None:
        number = f"{day.found}-{sandbox.transport}"
        answers += ["-y", number, *sandbox.task_nums(number)]
    if day.missed is not None:
        answers += ["-n", f"{day.missed}-{sandbox.transport}"]
    command = [str(program), *answers, sandbox.base_url, str(folder / "journal"), "m.lin", str(folder / "tasks")]
    command += [] if sandbox.ca_file is None else [str(sandbox.ca_file)]
    done = subprocess.run(
        command,
        env={**os.environ, "ARCTOS_TOKEN": TOKEN},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
    )

    wrong = []
    if done.returncode != day.exit_code:
        wrong.append(f"the exit code should be {day.exit_code}")
    for number, made in zip(numbers, day.made):
        count = len(sandbox.task_nums(number))
        if count != int(made):
            wrong.append(f"the sandbox made {number} {count} times, not {int(made)}")
    if day.exit_code == 0:
        all_made = "".join(f"{number} {task_num}\n" for number in numbers for task_num in sandbox.task_nums(number))
        if done.stdout != all_made:
            wrong.append(f"standard output should be the numbers alone: {all_made!r}")
    said = [line for line in (done.stdout + done.stderr).splitlines() if line]
    print_row("C", sandbox.transport, day.title, str(done.returncode), said + [f"WRONG: {what}" for what in wrong])
    return not wrong


def in_words(line: str) -> str:
    """A line of a caller; an event of the log without what does not change."""
    if not line.startswith("{"):
        return line
    event = json.loads(line)
    known = [f"{key} {event[key]}" for key in ("attempt", "http_status", "name", "outcome", "pause_ms") if key in event]
    return f"log: {event['event']} ({', '.join(known)})"


def show(caller: str, command: list[str], sandbox: Sandbox, case: Case, number: str) -> bool:
    """Runs a caller, prints its row, and tells whether all was as it should be."""
    done = run(command, sandbox, case, number)
    made = sandbox.task_nums(number)

    said = [in_words(line) for line in (done.stdout + done.stderr).splitlines() if line]
    wrong = []
    if done.returncode != case.exit_code:
        wrong.append(f"the exit code should be {case.exit_code}")
    if len(made) != int(case.made):
        wrong.append(f"the sandbox made {len(made)} appointments, not {int(case.made)}")
    if done.stdout != (f"{made[0]}\n" if case.exit_code == 0 and made else ""):
        wrong.append(f"standard output should be the number of the appointment alone; made: {made}")

    print_row(caller, sandbox.transport, case.title, str(done.returncode), said + [f"WRONG: {what}" for what in wrong])
    return not wrong


def print_row(caller: str, transport: str, title: str, exit_code: str, said: list[str]) -> None:
    lines = [part for line in said for part in textwrap.wrap(line, 66, break_long_words=False)] or [""]
    print(f"{caller:<8}{transport:<7}{title:<17}{exit_code:<6}{lines[0]}")
    for line in lines[1:]:
        print(" " * 38 + line)
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sandbox_program = ROOT / "target" / "debug" / "arctos-sandbox"
    parser.add_argument("--sandbox", type=Path, default=sandbox_program, help="the built arctos-sandbox")
    arguments = parser.parse_args()

    right = True
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            program, restart = (build_c_caller(folder, name) for name in ("add_task", "restart"))
            with Sandbox(arguments.sandbox, None) as http, Sandbox(arguments.sandbox, folder / "ca.pem") as https:
                print_row("caller", "over", "what happens", "exit", ["what the program said"])
                for case in CASES:
                    for sandbox in (http, https):
                        number = f"{case.beginning}-c-{sandbox.transport}"
                        right &= show("C", c_command(program, sandbox, case, number), sandbox, case, number)
                        number = f"{case.beginning}-python-{sandbox.transport}"
                        right &= show("Python", python_command(sandbox, case, number), sandbox, case, number)
                for sandbox in (http, https):
                    branch = folder / sandbox.transport
                    branch.mkdir()
                    for day in DAYS:
                        right &= start_day(restart, sandbox, day, branch)
    except (Failure, subprocess.TimeoutExpired) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    print(
        "\nEvery program ended as it should, and the sandbox made what it should."
        if right
        else "\nSomething was not as it should be; see WRONG above."
    )
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
