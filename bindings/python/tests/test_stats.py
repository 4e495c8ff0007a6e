"""What a client has done, in numbers."""

from __future__ import annotations

import contextlib
import typing
import unittest
from collections.abc import Mapping
from typing import Any

import arctos
import support
from test_errors import WithFake


class Stats(unittest.TestCase):
    def has_its_keys(self, stats: Mapping[str, Any], kind: Any) -> None:
        hints = typing.get_type_hints(kind)
        self.assertEqual(list(stats), list(hints))
        for key, hint in hints.items():
            if typing.is_typeddict(hint) if hasattr(typing, "is_typeddict") else hasattr(hint, "__total__"):
                self.has_its_keys(stats[key], hint)
            else:
                self.assertIsInstance(stats[key], typing.get_origin(hint) or hint, key)

    def test_the_keys_are_those_of_the_library(self) -> None:
        with arctos.Client(base_url="http://127.0.0.1:1") as client:
            self.has_its_keys(client.stats(), arctos.Stats)

    def test_calls_are_counted(self) -> None:
        with support.Server() as server, arctos.Client(base_url=server.url, token="t") as client:
            client.task_add(support.TASK)
            client.call("/api/room/list", {})
            with contextlib.suppress(arctos.BadTask):
                client.task_add({})
            self.assertEqual(len(list(client.task_add_many([support.TASK]))), 1)
            client.diagnose()
            stats = client.stats()
            self.assertEqual(stats["calls"]["codes"], {"ARCTOS_OK": 3, "ARCTOS_BAD_TASK": 1})
            self.assertEqual(stats["calls"]["outcomes"], {"not_created": 1, "created": 3, "unknown": 0})
            self.assertEqual((stats["calls"]["in_flight"], stats["attempts"], stats["retries"]), (0, 3, 0))
            # All but that of the diagnosis, which is the last one.
            self.assertEqual(stats["bytes"]["sent"], sum(map(len, server.requests[:-1])))
            self.assertEqual((stats["connections"]["opened"], stats["connections"]["closed"]["not_kept"]), (3, 3))
            self.assertEqual(stats["latency_us"]["count"], 4)


class Fake(WithFake):
    def test_documents_that_are_not_what_they_should_be(self) -> None:
        client = self.client()
        self.next(0, b'{"attempts":7}', 1)
        self.assertEqual(client.stats(), {"attempts": 7})
        self.next(0, None, 1)
        with self.assertRaises(MemoryError):
            client.stats()
        self.next(-99, b"{", 2)
        self.assertIs(self.failure(client.stats).outcome, arctos.Outcome.NOT_CREATED)


if __name__ == "__main__":
    unittest.main()
