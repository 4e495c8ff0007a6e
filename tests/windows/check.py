#!/usr/bin/env python3
"""Builds the library for 64-bit Windows and calls it under wine, against the sandbox, over http and https, with and
without a proxy.

`make check-windows` runs it. Where a tool is not installed it names the tool and ends with 0; where CI is "true" it
ends with 1, as it does when anything is wrong.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Mapping, Sequence
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples"))

from demo import TOKEN, Failure, Sandbox  # noqa: E402

HERE = ROOT / "tests" / "windows"
BUILT = ROOT / "target" / "windows"
TARGET = "x86_64-pc-windows-gnu"
# Debian's Rust: the source of its standard library is a package too, and can be built for any target.
CARGO = "/usr/bin/cargo"
RUSTC = "/usr/bin/rustc"
GCC = "x86_64-w64-mingw32-gcc"
OBJDUMP = "x86_64-w64-mingw32-objdump"
# What the library takes from Windows.
SYSTEM_DLLS = {
    "advapi32.dll",
    "api-ms-win-core-synch-l1-2-0.dll",
    "bcrypt.dll",
    "bcryptprimitives.dll",
    "crypt32.dll",
    "kernel32.dll",
    "msvcrt.dll",
    "ntdll.dll",
    "userenv.dll",
    "ws2_32.dll",
}
PROXY_USER = "branch:pass word@1"
# Long enough for a busy machine, short enough to notice that something hangs.
PATIENCE = 180

Command = Sequence["str | Path"]


def run(command: Command, environment: Mapping[str, str] = os.environ) -> str:
    """Runs a command that must succeed, and gives what it printed on standard output."""
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    if done.returncode != 0:
        raise Failure(f"{command[0]} ended with {done.returncode}")
    return done.stdout


def version(pattern: str, text: str) -> tuple[int, ...]:
    """The version that the pattern finds in the text."""
    found = re.search(pattern, text, re.MULTILINE)
    return tuple(map(int, found[1].split("."))) if found else ()


def missing_tools() -> list[str]:
    """What is not installed, each with the Debian package that brings it."""
    wanted = [
        (CARGO, "cargo-web"),
        (RUSTC, "rustc-web"),
        (GCC, "gcc-mingw-w64-x86-64"),
        (OBJDUMP, "binutils-mingw-w64-x86-64"),
        ("wine", "wine"),
        ("wineserver", "wine"),
    ]
    missing = [f"{name} is not installed (Debian package {by})" for name, by in wanted if shutil.which(name) is None]
    if shutil.which(RUSTC) is not None:
        required = version(r'^rust-version = "([\d.]+)"', (ROOT / "Cargo.toml").read_text())
        if version(r"^rustc ([\d.]+)", run([RUSTC, "--version"])) < required:
            missing.append(f"{RUSTC} is older than {'.'.join(map(str, required))} (Debian package rustc-web)")
        library = Path(run([RUSTC, "--print", "sysroot"]).strip(), "lib/rustlib/src/rust/library/Cargo.lock")
        if not library.exists():
            missing.append("the source of Rust's standard library is not installed (Debian package rust-web-src)")
    return missing


def build_library() -> Path:
    """Builds the DLL and its import library, and gives the folder that they are in."""
    command = [CARGO, "rustc", "--locked", "--quiet", "--lib", "--package", "arctos", "--crate-type", "cdylib"]
    command += ["-Zbuild-std=std,panic_unwind", "--target", TARGET, "--target-dir", str(BUILT)]
    # Cargo counts the building of the standard library as unstable.
    run(command, {**os.environ, "RUSTC": RUSTC, "RUSTC_BOOTSTRAP": "1"})
    return BUILT / TARGET / "debug"


def check_imports_and_exports(library: Path) -> None:
    """The DLL needs nothing that Windows does not bring, and exports the interface alone."""
    headers = run([OBJDUMP, "-p", library])
    imports = {name.lower() for name in re.findall(r"^\s*DLL Name: (.+)$", headers, re.MULTILINE)}
    if not imports or imports - SYSTEM_DLLS:
        raise Failure(f"{library.name} imports what is not known as a part of Windows: {sorted(imports - SYSTEM_DLLS)}")
    table = headers.partition("[Ordinal/Name Pointer] Table")[2].partition("\n\n")[0]
    exports = sorted(re.findall(r"^\s*\[.*\s(\S+)$", table, re.MULTILINE))
    expected = sorted((ROOT / "tests" / "exported-symbols.txt").read_text().split())
    if exports != expected:
        raise Failure(f"{library.name} exports {exports}, not what tests/exported-symbols.txt says")


def build_program(folder: Path, libraries: Path) -> Path:
    """Compiles the program into the folder, with the DLLs that it loads beside it."""
    program = folder / "appointment.exe"
    gcc: list[str | Path] = [GCC, "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    includes: list[str | Path] = ["-I", ROOT / "include", "-I", ROOT / "tests" / "c"]
    run([*gcc, *includes, "-o", program, HERE / "appointment.c", "-L", libraries, "-larctos", "-lws2_32"])
    run([*gcc, "-shared", "-o", folder / "bcryptprimitives.dll", HERE / "bcryptprimitives.c"])
    shutil.copy(libraries / "arctos.dll", folder)
    return program


@contextmanager
def wine(folder: Path) -> Iterator[Mapping[str, str]]:
    """The environment of a Windows of its own in the folder, which has ended with the statement."""
    prefix = folder / "wine"
    environment = {**os.environ, "WINEPREFIX": str(prefix), "WINEARCH": "win64", "WINEDEBUG": "-all,err+module"}
    # Nothing is installed into it or into the user's menus, it shows no window, and uses no folder of the user's.
    environment["WINEDLLOVERRIDES"] = "mscoree,mshtml,winemenubuilder.exe="
    environment["HOME"] = environment["TMPDIR"] = str(folder)
    environment.pop("DISPLAY", None)
    environment.pop("WAYLAND_DISPLAY", None)
    try:
        run_under_wine(["wineboot.exe", "--init"], folder, environment)
        yield environment
    finally:
        # Only what runs in this prefix; that nothing does is no failure.
        subprocess.run(["wineserver", "-k"], env=environment)
        subprocess.run(["wineserver", "-w"], env=environment)


class Tunnel(socketserver.BaseRequestHandler):
    """Opens a way by CONNECT to whoever has the password."""

    def handle(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = self.request.recv(4096)
            if not piece:
                return
            head += piece
        lines = head.decode("ascii").split("\r\n")
        method, _, place = lines[0].rpartition(" ")[0].partition(" ")
        password = base64.b64encode(PROXY_USER.encode()).decode()
        if method != "CONNECT" or f"Proxy-Authorization: Basic {password}" not in lines:
            self.request.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        host, _, port = place.rpartition(":")
        with socket.create_connection((host, int(port))) as server:
            self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=self.pass_on, args=(server, self.request))
            back.start()
            self.pass_on(self.request, server)
            back.join()

    @staticmethod
    def pass_on(source: socket.socket, sink: socket.socket) -> None:
        try:
            while piece := source.recv(65536):
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            # One side has ended the connection, and so does the other.
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


@contextmanager
def proxy() -> Iterator[str]:
    """A proxy with a password; what a client is told to find it."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Tunnel) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            user = quote(PROXY_USER, safe=":")
            yield f"http://{user}@127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            serving.join()


def run_under_wine(command: Command, folder: Path, environment: Mapping[str, str]) -> str:
    """Runs a Windows program that must succeed, in the folder, and gives what it printed."""
    # A file, since the processes that wine leaves behind would keep a pipe open.
    with tempfile.TemporaryFile("w+") as output:
        try:
            code = subprocess.run(
                ["wine", *command],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=PATIENCE,
            ).returncode
            end = f"ended with {code}"
        except subprocess.TimeoutExpired:
            code, end = None, f"had not ended after {PATIENCE} s"
        output.seek(0)
        printed = output.read()
    if code != 0:
        raise Failure(f"{command[0]} {end}:\n{printed}")
    return printed


def check_outcomes(printed: str, sandbox: Sandbox) -> int:
    """Asks the sandbox whether each outcome was true, and gives how many there were."""
    calls = re.findall(r"^call: (\S+) (\S+) (\S+)$", printed, re.MULTILINE)
    for number, outcome, task_num in calls:
        made = sandbox.task_nums(number)
        true = {"created": made == [task_num], "not_created": made == [], "unknown": len(made) <= 1}
        if not true[outcome]:
            raise Failure(f"the outcome of {number} was {outcome} ({task_num}), and the sandbox made {made}")
    if not calls:
        raise Failure(f"the program told of no call:\n{printed}")
    return len(calls)


def check() -> None:
    run([os.environ.get("CARGO", "cargo"), "build", "--locked", "--quiet", "--package", "arctos-sandbox"])
    server = ROOT / "target" / "debug" / "arctos-sandbox"
    libraries = build_library()
    check_imports_and_exports(libraries / "arctos.dll")
    print("arctos.dll imports parts of Windows alone, and exports what tests/exported-symbols.txt says", flush=True)
    with tempfile.TemporaryDirectory(dir=BUILT) as name:
        folder = Path(name)
        program = build_program(folder, libraries)
        with wine(folder) as environment:
            for ca_file in (None, folder / "ca.pem"):
                with Sandbox(server, ca_file) as sandbox, proxy() as way:
                    command = [program.name, sandbox.base_url, TOKEN, way] + ([ca_file.name] if ca_file else [])
                    printed = run_under_wine(command, folder, environment)
                    calls = check_outcomes(printed, sandbox)
                    print(f"{sandbox.transport} under wine: {calls} calls ended as they should", flush=True)


def main() -> int:
    missing = missing_tools()
    for tool in missing:
        print(f"skipped: the check of the library for Windows: {tool}", file=sys.stderr)
    if missing:
        return int(os.environ.get("CI") == "true")
    try:
        check()
    except Failure as error:
        print(f"check-windows: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
