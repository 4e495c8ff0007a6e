"""The log reaches a Python function, whatever that function does."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import unittest
import weakref
from typing import Any
from unittest import mock

import arctos
import support
from arctos import _library
from test_errors import WithFake

Event = tuple[int, "dict[str, Any]"]


class Log(unittest.TestCase):
    """With the library itself."""

    def setUp(self) -> None:
        self.addCleanup(arctos.set_log, None)
        self.events: list[Event] = []

    def collect(self, level: int, event: dict[str, Any]) -> None:
        self.events.append((level, event))

    def named(self) -> list[tuple[int, str]]:
        return [(level, event["event"]) for level, event in self.events]

    def test_events_are_dicts_with_their_level(self) -> None:
        arctos.set_log(self.collect, 4)
        with support.Server(busy=1) as server, arctos.Client(base_url=server.url, token="SECRET-token") as client:
            client.task_add_with({**support.TASK, "task_remark": "SECRET remark"}, call_id="desk-7")
        self.assertEqual(
            self.named(),
            [
                *((4, "attempt"), (4, "connect"), (3, "answer"), (2, "retry"), (3, "pause")),
                *((4, "attempt"), (4, "connect"), (3, "answer")),
            ],
        )
        for level, event in self.events:
            self.assertEqual((event["call_id"], event["out_task_num"]), ("desk-7", "T-1"))
            self.assertEqual(event["level"], ["error", "warning", "information", "detail"][level - 1])
        self.assertEqual([event["http_status"] for _, event in self.events if event["event"] == "answer"], [429, 200])
        self.assertNotIn("SECRET", json.dumps(self.events))

    def test_levels_above_the_highest_are_not_told(self) -> None:
        with support.Server(busy=1) as server, arctos.Client(base_url=server.url, token="t") as client:
            for most, named in ((2, [(2, "retry")]), (0, []), (-5, []), (2**40, None)):
                self.events.clear()
                server._busy = len(server.requests) + 1
                arctos.set_log(self.collect, most)
                client.task_add(support.TASK)
                if named is None:
                    self.assertIn((4, "attempt"), self.named())
                else:
                    self.assertEqual(self.named(), named)
            self.events.clear()
            arctos.set_log(self.collect)
            arctos.set_log(None)
            client.task_add(support.TASK)
            self.assertEqual(self.events, [])

    def test_a_callback_may_use_the_library(self) -> None:
        with arctos.Client(base_url="http://127.0.0.1:1") as client:

            def callback(level: int, event: dict[str, Any]) -> None:
                self.collect(level, event)
                # What it causes itself is not told, or this would not end.
                with self.assertRaises(arctos.BadTask):
                    client.task_add({})
                client.cancel()
                arctos.set_log(None)

            arctos.set_log(callback)
            for _ in range(2):
                with self.assertRaises(arctos.BadTask):
                    client.task_add({})
        self.assertEqual(self.named(), [(1, "failure")])

    def test_nobody_is_inside_the_old_one_when_another_is_set(self) -> None:
        inside = threading.Semaphore(0)
        go = threading.Event()
        left: list[str] = []

        def slow(level: int, event: dict[str, Any]) -> None:
            inside.release()
            go.wait()
            left.append("old")

        def fail(client: arctos.Client) -> None:
            with self.assertRaises(arctos.BadTask):
                client.task_add({})

        def replace() -> None:
            arctos.set_log(self.collect)
            left.append("set")

        with arctos.Client(base_url="http://127.0.0.1:1") as client:
            arctos.set_log(slow)
            threads = [threading.Thread(target=fail, args=(client,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for _ in threads:
                inside.acquire()
            setter = threading.Thread(target=replace)
            setter.start()
            # Those inside are still waiting: it must not have come back, nor may it hold up another call.
            while self.events == []:
                fail(client)
            self.assertEqual(left, [])
            go.set()
            for thread in [*threads, setter]:
                thread.join()
        self.assertEqual(left, ["old"] * 3 + ["set"])

    def test_of_two_that_set_one_at_once_the_last_stays(self) -> None:
        told: list[int] = []

        class Library:
            """Is overtaken on its way by another thread that sets one."""

            def set_log(self, function: Any, user: None, most: int) -> None:
                if most == 4:
                    arctos.set_log(outer.collect, 2)
                told.append(most)

        outer = self
        with mock.patch.object(_library, "_loaded", Library()):
            arctos.set_log(self.collect, 4)
        self.assertEqual(told[-1], 2)


class Exceptions(unittest.TestCase):
    """What a callback raises reaches neither the library nor the call."""

    def setUp(self) -> None:
        self.addCleanup(arctos.set_log, None)
        self.client = arctos.Client(base_url="http://127.0.0.1:1")
        self.addCleanup(self.client.close)

    def test_they_go_to_the_unraisable_hook(self) -> None:
        for error in (ValueError("on purpose"), SystemExit(3), MemoryError()):

            def callback(level: int, event: dict[str, Any], error: BaseException = error) -> None:
                raise error

            arctos.set_log(callback)
            reports: list[Any] = []
            with mock.patch.object(sys, "unraisablehook", reports.append):
                with self.assertRaises(arctos.BadTask):
                    self.client.task_add({})
            self.assertEqual([report.exc_value for report in reports], [error])

    def test_pythons_own_hook_takes_them(self) -> None:
        def callback(level: int, event: dict[str, Any]) -> None:
            raise ValueError("on purpose")

        arctos.set_log(callback)
        reports: list[str] = []
        with mock.patch.object(sys, "stderr", mock.Mock(write=reports.append)):
            with self.assertRaises(arctos.BadTask):
                self.client.task_add({})
        text = "".join(reports)
        self.assertIn("Exception ignored", text)
        self.assertIn("in callback", text)
        self.assertIn("ValueError: on purpose", text)

    def test_ctrl_c_is_raised_when_the_call_has_ended(self) -> None:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.addCleanup(signal.signal, signal.SIGINT, before)

        def callback(level: int, event: dict[str, Any]) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            while True:  # until Python has noticed it
                pass

        with mock.patch.object(sys, "unraisablehook", self.fail):
            arctos.set_log(callback)
            with self.assertRaises(KeyboardInterrupt):
                self.client.task_add({})
            arctos.set_log(None)
        with self.assertRaises(arctos.BadTask):
            self.client.task_add({})


class WithTheFake(WithFake):
    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(arctos.set_log, None)

    def test_the_callback_lives_as_long_as_it_is_set(self) -> None:
        class Callback:
            def __call__(self, level: int, event: dict[str, Any]) -> None:
                told.append((level, event))

        told: list[Event] = []
        callback = Callback()
        reference = weakref.ref(callback)
        arctos.set_log(callback, 2)
        del callback
        gc.collect()
        for level in (1, 2, 3):
            self.event(level, '{"event":"許"}'.encode())
        self.assertEqual(told, [(1, {"event": "許"}), (2, {"event": "許"})])
        arctos.set_log(None)
        self.assertIsNone(reference())
        self.event(1, b"{}")
        self.assertEqual(len(told), 2)


if __name__ == "__main__":
    unittest.main()
