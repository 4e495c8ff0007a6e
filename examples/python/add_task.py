#!/usr/bin/env python3
"""Makes one video appointment with the arctos library.

The token is read from the environment variable ARCTOS_TOKEN, since other users of the machine can
read a program's arguments. The server's task number is the only thing on standard output; everything
else goes to standard error. Ctrl-C cancels the call.

exit code:
  0  the appointment was made
  2  it was not made: trying again is safe
  3  unknown: it may have been made; find out before trying again
  4  it was made, but its number could not be had or printed
Any other end, such as a signal, says no more than 3.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

# Only this example needs the path: an installed package is simply imported.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bindings" / "python"))

import arctos

MADE = 0
EXIT_CODES = {arctos.Outcome.NOT_CREATED: 2, arctos.Outcome.UNKNOWN: 3, arctos.Outcome.CREATED: 4}


def report(what: str, outcome: arctos.Outcome) -> int:
    """Tells what happened, and gives the exit code."""
    # What a server says must neither break the line nor command the terminal.
    line = "".join(character if character.isprintable() else " " for character in what)
    print(f"{line} (outcome: {outcome.name.lower()})", file=sys.stderr)
    return EXIT_CODES[outcome]


def print_number(answer: dict[str, Any]) -> int:
    """Prints the number that a successful answer gives, and a note when it carries a warning."""
    # The server may write its status as 2 or as "2".
    if str(answer["status"]) == "2":
        report(f"warning: {answer.get('message') or 'the server gives no reason'}", arctos.Outcome.CREATED)
    number = answer["info"]["task_num"]
    try:
        # Not print(): Python would drop the number in silence where there is no standard output.
        with open(1, "w", encoding="utf-8", closefd=False) as output:
            output.write(f"{number}\n")
    except (OSError, ValueError):
        return report(f"the task number {number} could not be printed", arctos.Outcome.CREATED)
    return MADE


def write_event(level: int, event: dict[str, Any]) -> None:
    """Each event of the library is a dict; its line is JSON again."""
    print(json.dumps(event, ensure_ascii=False), file=sys.stderr)


def add(client: arctos.Client, task: dict[str, Any]) -> dict[str, Any]:
    """Makes the appointment. Ctrl-C cancels the call, which tells its outcome as ever."""
    signal.signal(signal.SIGINT, lambda *_: client.cancel())
    # On another thread: Python calls its handlers on this one, and not while that is in a function of C.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(client.task_add, task).result()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", required=True, help="the server, such as https://arctos.bank.example")
    parser.add_argument("--number", required=True, help="the caller's own number of the appointment (out_task_num)")
    parser.add_argument("--ca-file", help="the authorities (PEM) to trust instead of the system's")
    parser.add_argument("--timeout-ms", type=int, help="how long the whole call may take")
    parser.add_argument(
        "--server-dedupes",
        action="store_true",
        help="the vendor has promised that a repeat is answered with the first success: try what is unknown again",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show the library's log, a retry for one")
    arguments = parser.parse_args()

    task = {
        "business_id": 15,
        "out_task_num": arguments.number,
        "task_type": "normal",
        "task_notify": False,
        "task_time": (datetime.now(timezone.utc) + timedelta(days=1)).isoformat(timespec="seconds"),
        "branch_code": "943",
        "room_type": "normal",
        "video": True,
    }
    try:
        if arguments.verbose:
            arctos.set_log(write_event, most=3)
        with arctos.Client(
            base_url=arguments.base_url,
            # Without a token the library itself says what is missing, at the call.
            token=os.environ.get("ARCTOS_TOKEN"),
            timeout_ms=arguments.timeout_ms,
            tls={"roots": "file", "ca_file": arguments.ca_file} if arguments.ca_file else None,
            server_dedupes=arguments.server_dedupes,
        ) as client:
            answer = add(client, task)
    except arctos.LoadError as error:
        return report(str(error), arctos.Outcome.NOT_CREATED)
    except arctos.ArctosError as error:
        # Classes and codes tell why it failed; only the outcome tells whether the appointment may exist.
        server = error.details.get("server_message")
        said = f"; the server says: {server}" if server is not None else ""
        return report(f"{error.name}: {error}{said}", error.outcome)
    return print_number(answer)


if __name__ == "__main__":
    sys.exit(main())
