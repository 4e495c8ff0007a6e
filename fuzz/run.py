#!/usr/bin/env python3
"""Builds the fuzz targets and runs them.

    run.py                   every target, for FUZZ_SECONDS (60) each
    run.py TARGET            this one
    run.py TARGET FILE...    only these inputs of it, such as the one that a failure names

Needs nightly Rust, cargo-fuzz and a C++ compiler: without one of them nothing is run, which is a failure where CI is
"true". Inputs begin with fuzz/seeds and with the vectors in the folder that ARCTOS_VECTORS names; what a run finds is
kept in fuzz/corpus, what fails in fuzz/artifacts.
"""

import base64
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

CARGO = os.environ.get("CARGO", "cargo")
HERE = pathlib.Path(__file__).resolve().parent
TARGETS = ["config", "task", "json", "answer"]
# No seed is longer. The readers that the targets compare with leave the limits of long answers out.
LONGEST_INPUT = 4096
# Seconds: more than the longest deadline inside a target.
LONGEST_RUN = 60
# Of what a failed run printed: the failure, without how the run got there.
LAST_LINES = 100


def missing():
    """What is not installed, by name."""

    def works(*command):
        return shutil.which(command[0]) and subprocess.run(command, capture_output=True).returncode == 0

    if not works(CARGO, "+nightly", "--version"):
        return "nightly Rust is not installed (rustup toolchain install nightly)"
    if not works(CARGO, "+nightly", "fuzz", "--version"):
        return "cargo-fuzz is not installed (cargo install cargo-fuzz --locked)"
    if not shutil.which(os.environ.get("CXX", "c++")):
        return "a C++ compiler is not installed (Debian package g++)"
    return None


def skipped(what):
    """Says that something is skipped, which is a failure where CI is "true"."""
    print(f"skipped: {what}", file=sys.stderr)
    if os.environ.get("CI") == "true":
        sys.exit(1)


def build():
    """Builds all targets together, and gives the folder of their programs."""
    cargo = [CARGO, "+nightly"]
    manifest = HERE / "Cargo.toml"
    subprocess.run([*cargo, "fetch", "--locked", "--quiet", "--manifest-path", manifest], check=True)
    target = HERE / "target"
    subprocess.run([*cargo, "fuzz", "build", "--fuzz-dir", HERE, "--target-dir", target], cwd=HERE, check=True)
    about = subprocess.run(["rustc", "+nightly", "-vV"], check=True, capture_output=True, text=True).stdout
    host = re.search(r"^host: (.*)$", about, re.MULTILINE).group(1)
    return target / host / "release"


def write_vectors(folder):
    """Writes the vectors as inputs, a folder for each target that has some."""
    vectors = os.environ.get("ARCTOS_VECTORS")
    if not vectors:
        skipped("the vectors as seeds: ARCTOS_VECTORS names no folder")
        return
    for target in TARGETS:
        (folder / target).mkdir()
    texts = sorted(pathlib.Path(vectors, "JSONTestSuite").glob("*.json"))
    replies = json.loads(pathlib.Path(vectors, "http-replies/raw_replies.json").read_bytes())
    if not texts or not replies:
        sys.exit(f"{vectors} holds no vectors")
    for path in texts:
        text = path.read_bytes()
        (folder / "task" / path.name).write_bytes(text)
        (folder / "json" / path.name).write_bytes(b"/0\n1\n" + text)
    for number, reply in enumerate(replies):
        (folder / "answer" / str(number)).write_bytes(base64.b64decode(reply["raw"]))


def command(programs, target):
    """The program of a target, with what holds for every run of it."""
    artifacts = HERE / "artifacts" / target
    artifacts.mkdir(parents=True, exist_ok=True)
    return [programs / target, f"-artifact_prefix={artifacts}/", f"-timeout={LONGEST_RUN}", "-rss_limit_mb=4096"]


def environment():
    # One authority: reading all of the system's anew for each input takes most of the time.
    return {**os.environ, "SSL_CERT_FILE": str(HERE / "authority.pem"), "RUST_BACKTRACE": "0"}


def fuzz(programs, target, seeds, seconds):
    """Runs one target: its exit code and what it printed."""
    corpus = HERE / "corpus" / target
    corpus.mkdir(parents=True, exist_ok=True)
    folders = [corpus, HERE / "seeds" / target, seeds / target]
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST_INPUT}",
        f"-dict={HERE / 'dictionaries' / target}.dict",
        "-print_final_stats=1",
    ]
    run = [*command(programs, target), *options, *(folder for folder in folders if folder.is_dir())]
    # Beside authority.pem, which the target config names.
    done = subprocess.run(run, cwd=HERE, env=environment(), capture_output=True)
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


def run_all(programs, targets, seconds):
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        seeds = pathlib.Path(folder)
        write_vectors(seeds)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            runs = {target: pool.submit(fuzz, programs, target, seeds, seconds) for target in targets}
            for target, run in runs.items():
                code, printed = run.result()
                runs_made = re.search(r"stat::number_of_executed_units: *(\d+)", printed)
                count = int(runs_made.group(1)) if runs_made else 0
                print(f"{target}: {'failed' if code else 'nothing found'} after {count} runs", flush=True)
                if code:
                    failed.append(target)
                    print(*printed.splitlines()[-LAST_LINES:], sep="\n", file=sys.stderr)
                    for path in re.findall(r"Test unit written to (.*)", printed):
                        print(f"again: python3 fuzz/run.py {target} {path}", file=sys.stderr)
    return 1 if failed else 0


def main(arguments):
    targets, files = arguments[:1] or TARGETS, arguments[1:]
    if not set(targets) <= set(TARGETS):
        sys.exit(__doc__)
    seconds = int(os.environ.get("FUZZ_SECONDS", "60"))
    what = missing()
    if what:
        skipped(f"fuzzing: {what}")
        return 0
    programs = build()
    if files:
        inputs = [pathlib.Path(file).resolve() for file in files]
        return subprocess.run([*command(programs, targets[0]), *inputs], cwd=HERE, env=environment()).returncode
    return run_all(programs, targets, seconds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
