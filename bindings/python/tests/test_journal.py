"""With a journal an appointment is made once under its number, and a person is told what is not certain."""

from __future__ import annotations

import datetime
import json
import os
import pickle
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

import arctos
import support
from test_errors import WithFake

UTC = datetime.timezone.utc
BRANCH = datetime.timezone(datetime.timedelta(hours=8))
OTHER_TASK = {**support.TASK, "branch_code": 944}


def numbered(number: str) -> dict[str, Any]:
    return {**support.TASK, "out_task_num": number}


class WithJournal(unittest.TestCase):
    """Tests with a file of their own."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = Path(folder.name, "journal")

    def client(self, server: support.Server, **keys: Any) -> arctos.Client:
        client = arctos.Client(base_url=server.url, token="t", journal={"file": self.file}, **keys)
        self.addCleanup(client.close)
        return client

    def numbers(self, page: arctos.JournalPage) -> list[str]:
        return [row["out_task_num"] for row in page.rows]


class Adding(WithJournal):
    def test_the_same_task_again_gives_the_recorded_answer(self) -> None:
        with support.Server() as server:
            first = self.client(server).task_add(support.TASK)
            again = self.client(server).task_add(dict(reversed(support.TASK.items())))
            self.assertEqual(again, first)
            self.assertEqual(len(server.requests), 1)
            # Without a journal nobody knows of the first.
            with arctos.Client(base_url=server.url, token="t") as forgetful:
                forgetful.task_add(support.TASK)
            self.assertEqual(len(server.requests), 2)

    def test_another_task_under_the_number_is_a_conflict(self) -> None:
        with support.Server() as server:
            client = self.client(server)
            made = client.task_add(support.TASK)
            with self.assertRaises(arctos.Conflict) as conflict:
                client.task_add(OTHER_TASK)
            error = conflict.exception
            self.assertIs(error.outcome, arctos.Outcome.CREATED)
            self.assertEqual(error.recorded_answer, made)
            self.assertEqual(pickle.loads(pickle.dumps(error)).recorded_answer, made)
            self.assertEqual(len(server.requests), 1)

    def test_what_may_have_been_made_waits_for_a_person(self) -> None:
        with support.Server(resets=1) as server:
            client = self.client(server)
            with self.assertRaises(arctos.Broken):
                client.task_add(support.TASK)
            for task, kind in ((support.TASK, arctos.Unresolved), (OTHER_TASK, arctos.Conflict)):
                with self.assertRaises(kind) as unknown:
                    client.task_add(task)
                self.assertIs(unknown.exception.outcome, arctos.Outcome.UNKNOWN)
                self.assertIsNone(unknown.exception.recorded_answer)
            self.assertEqual(len(server.requests), 1)

            row = client.journal_resolve("T-1", arctos.Outcome.NOT_CREATED, "m.lin", note="not in the list")
            self.assertEqual((row["outcome"], row["by"], row["note"]), ("not_created", "m.lin", "not in the list"))
            self.assertEqual(client.task_add(support.TASK), json.loads(support.SUCCESS))
            self.assertEqual(len(server.requests), 2)

    def test_what_a_person_has_found_is_handed_over(self) -> None:
        with support.Server(resets=1) as server:
            client = self.client(server)
            with self.assertRaises(arctos.Broken):
                client.task_add(support.TASK)
            row = client.journal_resolve("T-1", "created", "許", task_num="7")
            self.assertEqual((row["outcome"], row["by"]), ("created", "許"))
            self.assertNotIn("note", row)
            answer = client.task_add(support.TASK)
            self.assertEqual((answer["info"], answer["resolved"]), ({"task_num": "7"}, True))
            self.assertEqual(client.journal_list().rows[0]["answer"], answer)
            self.assertEqual(len(server.requests), 1)

    def test_a_process_that_is_killed_leaves_what_is_unknown(self) -> None:
        code = (
            "import arctos, support, sys\n"
            "client = arctos.Client(base_url=sys.argv[1], token='t', journal={'file': sys.argv[2]})\n"
            "client.task_add(support.TASK)\n"
        )
        path = os.pathsep.join([str(support.PACKAGE.parent), str(support.FOLDER)])
        with support.Server(silent=True) as server:
            environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
            with subprocess.Popen([sys.executable, "-c", code, server.url, str(self.file)], env=environment) as sender:
                server.wait()
                client = self.client(server)
                self.assertEqual([row["outcome"] for row in client.journal_list().rows], ["sending"])
                with self.assertRaises(arctos.Timeout) as late:
                    client.task_add_with(support.TASK, timeout_ms=200)
                self.assertIs(late.exception.outcome, arctos.Outcome.UNKNOWN)
                sender.kill()
            self.assertEqual([row["outcome"] for row in client.journal_list().rows], ["unknown"])
            with self.assertRaises(arctos.Unresolved):
                client.task_add(support.TASK)
            self.assertEqual(len(server.requests), 1)


class Listing(WithJournal):
    def test_a_row_has_what_is_known(self) -> None:
        with support.Server() as server:
            client = self.client(server)
            before = datetime.datetime.now(UTC) - datetime.timedelta(milliseconds=1)
            client.task_add(support.TASK)
            page = client.journal_list()
            self.assertIsNone(page.next)
            (row,) = page.rows
            self.assertEqual((row["out_task_num"], row["outcome"], row["code"]), ("T-1", "created", 0))
            self.assertEqual(row["server"], server.url)
            self.assertEqual(row["answer"], json.loads(support.SUCCESS))
            started, ended = (datetime.datetime.fromisoformat(row[key][:-1] + "+00:00") for key in ("started", "ended"))
            self.assertLessEqual(before, started)
            self.assertLessEqual(started, ended)
            self.assertTrue({"resolved", "by", "note"}.isdisjoint(row))

    def test_pages(self) -> None:
        names = [f"T-{number}" for number in range(7)]
        with support.Server() as server:
            client = self.client(server)
            for name in names:
                client.task_add(numbered(name))
            pages = [client.journal_list(limit=3)]
            while pages[-1].next is not None:
                pages.append(client.journal_list(limit=3, after=pages[-1].next))
            self.assertEqual([self.numbers(page) for page in pages], [names[:3], names[3:6], names[6:]])
            self.assertEqual([row["out_task_num"] for row in client.journal_rows()], names)
            self.assertEqual(list(client.journal_rows("unknown")), [])

    def test_all_pages_while_what_they_give_is_resolved(self) -> None:
        count = 101  # one more than a page has
        with support.Server(resets=count) as server:
            client = self.client(server)
            for number in range(count):
                with self.assertRaises(arctos.Broken):
                    client.task_add(numbered(f"T-{number}"))
            self.assertIsNotNone(client.journal_list().next)
            resolved = []
            for row in client.journal_rows(arctos.Outcome.UNKNOWN):
                client.journal_resolve(row["out_task_num"], "not_created", "m.lin")
                resolved.append(row["out_task_num"])
            self.assertEqual(resolved, [f"T-{number}" for number in range(count)])
            self.assertEqual(client.journal_list("unknown"), ([], None))

    def test_outcomes_and_times(self) -> None:
        with support.Server(resets=1) as server:
            client = self.client(server)
            with self.assertRaises(arctos.Broken):
                client.task_add(numbered("T-broken"))
            client.task_add(numbered("T-made"))
            for outcome in (arctos.Outcome.CREATED, "created"):
                self.assertEqual(self.numbers(client.journal_list(outcome)), ["T-made"])
            self.assertEqual(self.numbers(client.journal_list("unknown")), ["T-broken"])
            self.assertEqual(client.journal_list("sending").rows, [])
            self.assertEqual(client.journal_list(arctos.Outcome.NOT_CREATED).rows, [])

            both, hour = ["T-broken", "T-made"], datetime.timedelta(hours=1)
            for now in (datetime.datetime.now(UTC), datetime.datetime.now(BRANCH)):
                for since, until, found in (
                    (now - hour, None, both),
                    (now - hour, now + hour, both),
                    (now + hour, None, []),
                    (None, now - hour, []),
                ):
                    self.assertEqual(self.numbers(client.journal_list(since=since, until=until)), found)
                    texts = [None if time is None else time.isoformat() for time in (since, until)]
                    self.assertEqual(self.numbers(client.journal_list(since=texts[0], until=texts[1])), found)
            # An offset with seconds, which RFC 3339 cannot write.
            odd = datetime.timezone(datetime.timedelta(hours=8, minutes=5, seconds=43))
            self.assertEqual(self.numbers(client.journal_list(since=datetime.datetime.now(odd) - hour)), both)
            first = client.journal_list().rows[0]["started"]
            self.assertEqual(self.numbers(client.journal_list(since=first)), both)
            self.assertEqual(client.journal_list(until=first).rows, [])

    def test_filters_that_are_wrong(self) -> None:
        with support.Server() as server:
            client = self.client(server)
            wrong: list[tuple[str, Any]] = [
                ("outcome", "made"),
                ("since", "yesterday"),
                ("until", "2026-11-24T15:30:00"),
                ("limit", 0),
                ("limit", 1001),
                ("limit", 1.5),
                ("after", "x"),
                ("after", 5),
            ]
            for key, value in wrong:
                with self.assertRaises(arctos.BadArgument) as bad:
                    client.journal_list(**{key: value})
                self.assertEqual([problem["field"] for problem in bad.exception.problems], [key])
                self.assertIs(bad.exception.outcome, arctos.Outcome.NOT_CREATED)
            naive: Any = datetime.datetime(2026, 11, 24, 15, 30)
            for key in ("since", "until"):
                with self.assertRaisesRegex(ValueError, f"{key} has no time zone"):
                    client.journal_list(**{key: naive})
                with self.assertRaises(TypeError):
                    client.journal_list(**{key: naive.date()})


class Resolving(WithJournal):
    def test_what_cannot_be_resolved_stays_as_it_was(self) -> None:
        with support.Server(resets=1) as server:
            client = self.client(server)
            with self.assertRaises(arctos.Broken):
                client.task_add(numbered("T-broken"))
            client.task_add(numbered("T-made"))
            rows = client.journal_list().rows
            with self.assertRaises(arctos.NoValue):
                client.journal_resolve("T-2", "not_created", "m.lin")
            wrong: list[tuple[dict[str, Any], str]] = [
                ({"outcome": "created", "by": "m.lin"}, "task_num"),
                ({"outcome": "not_created", "by": "m.lin", "task_num": "7"}, "task_num"),
                ({"outcome": arctos.Outcome.UNKNOWN, "by": "m.lin"}, "outcome"),
                ({"outcome": "not_created", "by": " "}, "by"),
                ({"outcome": "not_created", "by": "m.lin", "note": "x" * 5000}, "note"),
            ]
            for said, field in wrong:
                with self.assertRaises(arctos.BadArgument) as bad:
                    client.journal_resolve("T-broken", **said)
                self.assertEqual([problem["field"] for problem in bad.exception.problems], [field])
            with self.assertRaises(arctos.BadArgument):
                client.journal_resolve("T-made", "not_created", "m.lin")
            self.assertEqual(client.journal_list().rows, rows)


class Keys(WithJournal):
    def test_the_keys_reach_the_library(self) -> None:
        with support.Server() as server:
            for file in (self.file, str(self.file)):
                keys: arctos.JournalKeys = {"file": file, "server_id": "arctos", "keep_days": 30}
                with arctos.Client(base_url=server.url, token="t", journal=keys) as client:
                    self.assertEqual(client.config["journal"], {**keys, "file": str(self.file)})
                    client.task_add(support.TASK)
            self.assertEqual(len(server.requests), 1)
            # The rows are of that id.
            with self.client(server) as stranger:
                self.assertEqual(stranger.journal_list().rows, [])

    def test_a_file_that_is_no_journal(self) -> None:
        self.file.write_text("the minutes of a meeting", encoding="utf-8")
        with self.assertRaises(arctos.BadConfig) as bad:
            arctos.Client(base_url="https://a.example", journal={"file": self.file})
        self.assertEqual([problem["field"] for problem in bad.exception.problems], ["journal.file"])
        self.assertEqual(self.file.read_text(encoding="utf-8"), "the minutes of a meeting")

    def test_a_client_without_a_journal(self) -> None:
        with arctos.Client(base_url="https://a.example") as client:
            self.assertNotIn("journal", client.config)
            for call in (client.journal_list, lambda: client.journal_resolve("T-1", "not_created", "m.lin")):
                with self.assertRaisesRegex(arctos.BadArgument, "journal"):
                    call()


class Fake(WithFake):
    def test_only_what_is_given_reaches_the_library(self) -> None:
        client = self.client()
        noon = datetime.datetime(2026, 11, 24, 20, tzinfo=BRANCH)
        for given, text in (
            ({}, b"NULL"),
            ({"outcome": arctos.Outcome.NOT_CREATED}, b'{"outcome":"not_created"}'),
            ({"since": noon}, b'{"since":"2026-11-24T12:00:00+00:00"}'),
            ({"until": "any", "limit": 5, "after": "7"}, b'{"until":"any","limit":5,"after":"7"}'),
        ):
            keywords: dict[str, Any] = given
            self.next(0, b'{"rows":[],"next":"8"}', 2)
            self.assertEqual(client.journal_list(**keywords), ([], "8"))
            self.assertEqual(self.options(), text)
        self.next(0, b'{"outcome":"created"}', 2)
        row = client.journal_resolve("N", arctos.Outcome.CREATED, "m.lin", task_num="7", note='a "note"')
        self.assertEqual(row, {"outcome": "created"})
        said = {"outcome": "created", "task_num": "7", "by": "m.lin", "note": 'a "note"'}
        self.assertEqual(json.loads(self.options()), said)
        self.assertEqual(self.texts(), 0)

    def test_a_missing_text_is_a_memory_error(self) -> None:
        client = self.client()
        self.next(0, None, 2)
        for call in (client.journal_list, lambda: client.journal_resolve("N", "not_created", "m.lin")):
            with self.assertRaises(MemoryError):
                call()

    def test_a_recorded_answer_that_is_no_object_is_none(self) -> None:
        client = self.client()
        for text in (None, b"{}", b'{"recorded_answer":5}', b'{"recorded_answer":null}'):
            self.next(-32, text, 2)
            self.assertIsNone(self.failure(client.task_add, support.TASK).recorded_answer)


if __name__ == "__main__":
    unittest.main()
