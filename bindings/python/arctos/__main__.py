"""``python -m arctos diagnose`` tells what stands between this machine and the server."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ._client import Client
from ._errors import ArctosError
from ._library import LoadError
from ._log import set_log

WELL = 0
FAILED = 1
NOT_DIAGNOSED = 2

ABOUT = """\
Tells what stands between this machine and the server, step by step, for a help desk. Makes no appointment, and no
token leaves this machine. The steps are on standard output; they hold no secret.

With --config, and run as the same user, what is told is what the program meets that uses this configuration. Without
it the token is read from the environment variable ARCTOS_TOKEN, since other users of the machine can read a program's
arguments; for the same reason a proxy with a password is named in a configuration, or in HTTPS_PROXY with --proxy env.

exit code:
  0  nothing stands in the way
  1  a step has failed: the last line names its code
  2  nothing was found out: an argument, the configuration or the library is wrong
"""


def shown(text: object) -> str:
    """A text on one line: what a server says of itself must neither break it nor command the terminal."""
    return "".join(character if character.isprintable() else " " for character in str(text))


def describe(steps: list[dict[str, Any]]) -> str:
    """The steps for people."""
    lines: list[str] = []

    def under(text: str) -> None:
        lines.append(" " * 30 + text)

    for step in steps:
        name, state, ms = shown(step["step"]), shown(step["state"]), shown(step["ms"])
        lines.append(f"{state:<8} {name:<8} {ms:>7} ms  {shown(step['detail'])}")
        for number, certificate in enumerate(step.get("chain", []), 1):
            field = {key: shown(value) for key, value in certificate.items()}
            under(f"certificate {number}: {field['subject']}")
            under(f"  issuer {field['issuer']}")
            under(f"  valid  {field['not_before']} to {field['not_after']}")
            under(f"  pin    {field.get('pin', '')}")
        if "root" in step:
            under(f"root: {shown(step['root'])}")
        # What was not reached waits for the step that failed.
        if state != "skipped" and step["advice"] != "nothing to do":
            under(f"-> {shown(step['advice'])}")
    return "".join(f"{line}\n" for line in lines)


def write(text: str) -> bool:
    """Writes to standard output; False where that takes nothing, or is not there."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        # Not print(): Python would drop the text in silence where there is no standard output.
        with open(1, "w", encoding=encoding, errors="backslashreplace", closefd=False) as output:
            output.write(text)
    except (OSError, ValueError):
        return False
    return True


def complain(what: str) -> int:
    print(shown(what), file=sys.stderr)
    return NOT_DIAGNOSED


def write_event(level: int, event: dict[str, Any]) -> None:
    """Each event of the library is a dict; its line is JSON again."""
    print(json.dumps(event), file=sys.stderr)


def open_client(arguments: argparse.Namespace) -> Client:
    if arguments.config is not None:
        with open(arguments.config, encoding="utf-8") as file:
            return Client.from_json(file.read())
    return Client(
        base_url=arguments.base_url,
        # Without a token the library itself says that it is missing.
        token=None if arguments.token_file is not None else os.environ.get("ARCTOS_TOKEN"),
        token_file=arguments.token_file,
        proxy=arguments.proxy,
        timeout_ms=arguments.timeout_ms,
        tls={"roots": "file", "ca_file": arguments.ca_file} if arguments.ca_file is not None else None,
    )


def ask(client: Client) -> dict[str, Any]:
    """Diagnoses. Ctrl-C cancels it, and the steps up to there are told."""
    signal.signal(signal.SIGINT, lambda *_: client.cancel())
    # On another thread: Python calls its handlers on this one, and not while that is in a function of C.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(client.diagnose).result()


def diagnose(arguments: argparse.Namespace) -> int:
    document: dict[str, Any]
    try:
        if arguments.verbose:
            set_log(write_event, most=4)
        with open_client(arguments) as client:
            document = ask(client)
        steps, name, result = document["steps"], "ARCTOS_OK", WELL
    except LoadError as error:
        print(error, file=sys.stderr)  # on several lines, all of them ours
        return NOT_DIAGNOSED
    except (OSError, UnicodeDecodeError) as error:
        return complain(f"the configuration {arguments.config} cannot be read: {error}")
    except ArctosError as error:
        if not error.steps:
            return complain(f"{error.name}: {error}")
        document, steps, name, result = error.details, error.steps, error.name, FAILED
    text = json.dumps(document, indent=2) + "\n" if arguments.json else describe(steps) + name + "\n"
    return result if write(text) else complain("the steps could not be printed")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m arctos", description="Uses the arctos library.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "diagnose",
        help="tell what stands between this machine and the server",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", metavar="FILE", help="the whole configuration, a JSON file; no other key is taken")
    source.add_argument("--base-url", metavar="URL", help="the server, such as https://arctos.bank.example")
    keys = [
        command.add_argument("--ca-file", metavar="FILE", help="authorities (PEM) to trust instead of the system's"),
        command.add_argument("--proxy", metavar="URL", help="http://host:port, or env for HTTPS_PROXY and NO_PROXY"),
        command.add_argument("--token-file", metavar="FILE", help="the file that holds the token"),
        command.add_argument("--timeout-ms", metavar="N", type=int, help="how long all of it may take"),
    ]
    command.add_argument("--json", action="store_true", help="print the library's document instead")
    command.add_argument("-v", "--verbose", action="store_true", help="show the library's log on standard error")
    arguments = parser.parse_args()
    given = [key.option_strings[0] for key in keys if getattr(arguments, key.dest) is not None]
    if arguments.config is not None and given:
        command.error(f"{given[0]} stands in the configuration when there is one")
    return diagnose(arguments)


if __name__ == "__main__":
    sys.exit(main())
