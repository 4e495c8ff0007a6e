#!/usr/bin/env python3
"""Makes calls through a Python library, and tells how long they took.

    python.py LIBRARY URL CA_FILE THREADS BODY_BYTES KEEP

LIBRARY is arctos, requests, httpx or pycurl. What the other arguments mean, and what it reads and prints, is told in
client.h: there are no CLIENTS and no `count` here, and the nanoseconds of the set-up have the import in them.
"""

import itertools
import json
import os
import sys
import threading
import time

PATH = "/api/task/do_add"
TOKEN = "a-token-of-the-bench"
AGENT = "arctos-bench"
HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    "Authorization": f"Bearer {TOKEN}",
    "User-Agent": AGENT,
}
# Seconds.
CONNECT_TIMEOUT, TIMEOUT = 5, 15


def arctos(url, ca_file, threads, keep):
    import arctos

    client = arctos.Client(
        base_url=url,
        token=TOKEN,
        user_agent=AGENT,
        timeout_ms=TIMEOUT * 1000,
        connect_timeout_ms=CONNECT_TIMEOUT * 1000,
        connections=max(8, threads),
        idle_timeout_ms=None if keep else 0,
        tls=None if ca_file is None else {"roots": "file", "ca_file": ca_file},
    )
    return f"libarctos/{arctos.version()}", [client.task_add] * threads


def requests(url, ca_file, threads, keep):
    import requests

    def caller():
        session = requests.Session()
        session.headers.update(HEADERS)
        session.verify = ca_file or True

        def call(task):
            answer = session.post(url + PATH, data=task.encode(), timeout=(CONNECT_TIMEOUT, TIMEOUT))
            if not keep:
                session.close()
            answer.raise_for_status()
            return answer.json()

        return call

    return f"requests/{requests.__version__}", [caller() for _ in range(threads)]


def httpx(url, ca_file, threads, keep):
    import ssl

    import httpx

    client = httpx.Client(
        headers=HEADERS,
        verify=True if ca_file is None else ssl.create_default_context(cafile=ca_file),
        timeout=httpx.Timeout(TIMEOUT, connect=CONNECT_TIMEOUT),
        limits=httpx.Limits(max_keepalive_connections=max(8, threads) if keep else 0),
    )

    def call(task):
        answer = client.post(url + PATH, content=task.encode())
        answer.raise_for_status()
        return answer.json()

    return f"httpx/{httpx.__version__}", [call] * threads


def pycurl(url, ca_file, threads, keep):
    import io

    import pycurl

    def caller():
        curl = pycurl.Curl()
        curl.setopt(curl.URL, url + PATH)
        curl.setopt(curl.HTTPHEADER, [*(f"{name}: {value}" for name, value in HEADERS.items()), "Expect:"])
        curl.setopt(curl.CONNECTTIMEOUT, CONNECT_TIMEOUT)
        curl.setopt(curl.TIMEOUT, TIMEOUT)
        curl.setopt(curl.NOSIGNAL, 1)
        curl.setopt(curl.FORBID_REUSE, 0 if keep else 1)
        if ca_file is not None:
            curl.setopt(curl.CAINFO, ca_file)

        def call(task):
            answer = io.BytesIO()
            curl.setopt(curl.POSTFIELDS, task.encode())
            curl.setopt(curl.WRITEDATA, answer)
            curl.perform()
            if curl.getinfo(curl.RESPONSE_CODE) != 200:
                raise ValueError(f"HTTP {curl.getinfo(curl.RESPONSE_CODE)}")
            return json.loads(answer.getvalue())

        return call

    # Itself, libcurl and its TLS.
    version = " ".join(pycurl.version.split()[:3])
    return version, [caller() for _ in range(threads)]


LIBRARIES = {library.__name__: library for library in (arctos, requests, httpx, pycurl)}

TASK = (
    '{"business_id":15,"out_task_num":"BENCH-%012d","task_type":"normal","task_notify":false,'
    '"task_time":"1795505400","branch_code":943,"room_type":"normal","video":true,'
    '"out_task_type":"mortgage","business_code":"0715","task_remark":"%s"}'
)
NUMBERS = itertools.count(1)


def number(text, least):
    value = int(text)
    if value < least:
        sys.exit(__doc__)
    return value


class Caller(threading.Thread):
    """Makes the calls of a round whenever both barriers let it."""

    def __init__(self, call, remark, start, end):
        super().__init__(daemon=True)
        self.call, self.remark, self.start_round, self.end_round = call, remark, start, end
        self.calls, self.each, self.began, self.ended = 0, [], 0, 0

    def run(self):
        while True:
            self.start_round.wait()
            try:
                self.make_calls()
            except Exception as error:
                print(f"a call failed: {error!r}", file=sys.stderr, flush=True)
                # Nobody else would come to the barrier.
                os._exit(1)
            self.end_round.wait()

    def make_calls(self):
        self.each = []
        self.began = time.monotonic_ns()
        for _ in range(self.calls):
            task = TASK % (next(NUMBERS), self.remark)
            before = time.monotonic_ns()
            answer = self.call(task)
            if answer["status"] not in (1, 2) or not answer["info"]["task_num"]:
                raise ValueError(f"no appointment: {answer}")
            self.each.append(time.monotonic_ns() - before)
        self.ended = time.monotonic_ns()


def memory():
    """What the process has in memory now, and what it had at most, in KiB."""
    with open("/proc/self/status", encoding="ascii") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines["VmRSS"].split()[0]), int(lines["VmHWM"].split()[0])


def tell(**what):
    print(json.dumps(what, separators=(",", ":")), flush=True)


def main(arguments):
    if len(arguments) != 6 or arguments[0] not in LIBRARIES or arguments[5] not in ("keep", "fresh"):
        sys.exit(__doc__)
    library, url, ca_file, threads, body_bytes, keep = arguments
    threads = number(threads, 1)
    remark = "x" * (number(body_bytes, 1) - len(TASK % (0, "")))
    before = time.monotonic_ns()
    version, calls = LIBRARIES[library](url, None if ca_file == "-" else ca_file, threads, keep == "keep")
    tell(version=version, setup_ns=time.monotonic_ns() - before)

    start, end = threading.Barrier(threads + 1), threading.Barrier(threads + 1)
    callers = [Caller(call, remark, start, end) for call in calls]
    for caller in callers:
        caller.start()
    for line in sys.stdin:
        command, _, count = line.partition(" ")
        if command != "calls":
            sys.exit(f"no such command: {line!r}")
        for caller in callers:
            caller.calls = number(count, 1)
        processor = time.process_time_ns()
        start.wait()
        end.wait()
        processor = time.process_time_ns() - processor
        wall = max(caller.ended for caller in callers) - min(caller.began for caller in callers)
        rss, peak = memory()
        each = [took for caller in callers for took in caller.each]
        tell(each_ns=each, wall_ns=wall, cpu_ns=processor, rss_kib=rss, peak_rss_kib=peak)


if __name__ == "__main__":
    main(sys.argv[1:])
