"""Many appointments: an iterator of tasks in, an iterator of results out, and no number sent twice."""

from __future__ import annotations

import gc
import json
import pickle
import tempfile
import threading
import types
import unittest
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import arctos
import support
from test_errors import WithFake


def numbered(number: Any) -> dict[str, Any]:
    return {**support.TASK, "out_task_num": number}


def tasks(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [numbered(f"T-{number}") for number in range(first, first + count)]


def echo(body: str) -> str:
    """An answer that tells whose it is."""
    return json.dumps({"status": 1, "info": {"task_num": "made-" + json.loads(body)["out_task_num"]}})


def sent(server: support.Server) -> list[str]:
    """The numbers that have come, in order of their names."""
    return sorted(json.loads(body)["out_task_num"] for body in server.bodies())


class Sending(unittest.TestCase):
    """With the library itself."""

    def client(self, server: support.Server, **keys: Any) -> arctos.Client:
        client = arctos.Client(base_url=server.url, token="t", **keys)
        self.addCleanup(client.close)
        return client

    def test_each_task_has_its_own_result_in_order(self) -> None:
        with support.Server(echo) as server:
            client = self.client(server)
            for chunk in (1, 3, 7, 1000):
                server.requests.clear()
                results = list(client.task_add_many(tasks(7), chunk=chunk))
                self.assertEqual([result.index for result in results], list(range(7)))
                self.assertEqual([result.out_task_num for result in results], [f"T-{index}" for index in range(7)])
                for result in results:
                    self.assertEqual(result.answer, {"status": 1, "info": {"task_num": f"made-{result.out_task_num}"}})
                    self.assertEqual((result.ok, result.code, result.error), (True, 0, None))
                    self.assertIs(result.outcome, arctos.Outcome.CREATED)
                self.assertEqual(sent(server), [f"T-{index}" for index in range(7)])

    def test_tasks_are_what_task_add_takes(self) -> None:
        text = json.dumps(numbered("T-text"), indent=1) + " \n"
        given: list[Any] = [numbered("T-dict"), types.MappingProxyType(numbered("許功蓋 \U00020000")), text]
        with support.Server(echo) as server:
            results = list(self.client(server).task_add_many(iter(given)))
            self.assertEqual([result.out_task_num for result in results], ["T-dict", "許功蓋 \U00020000", "T-text"])
            self.assertTrue(all(result.ok for result in results))
            self.assertIn(text.strip(), [body.strip() for body in server.bodies()])

    def test_no_tasks_have_no_results(self) -> None:
        with support.Server() as server:
            self.assertEqual(list(self.client(server).task_add_many([])), [])
            self.assertEqual(server.requests, [])

    def test_a_failure_is_that_of_its_task_and_the_others_go_on(self) -> None:
        def answer(body: str) -> str:
            return '{"status":0,"message":"no such branch"}' if "T-1" in body else echo(body)

        with support.Server(answer) as server:
            client = self.client(server)
            given = [*tasks(3), {**numbered("T-bad"), "room_type": "large"}, {}]
            made, failed, also_made, bad, empty = client.task_add_many(given, call_id="night")
            self.assertTrue(made.ok and also_made.ok)
            self.assertEqual(sent(server), ["T-0", "T-1", "T-2"])
            for result, kind in ((failed, arctos.Failed), (bad, arctos.BadTask), (empty, arctos.BadTask)):
                self.assertFalse(result.ok)
                self.assertIsNone(result.answer)
                self.assertIs(type(result.error), kind)
                assert result.error is not None
                self.assertEqual((result.code, result.outcome), (result.error.code, arctos.Outcome.NOT_CREATED))
                self.assertIs(result.error.outcome, arctos.Outcome.NOT_CREATED)
                self.assertEqual(result.error.details["call_id"], "night")
                again = pickle.loads(pickle.dumps(result))
                self.assertEqual((type(again.error), vars(again.error)), (kind, vars(result.error)))
            assert failed.error is not None and bad.error is not None
            self.assertEqual(failed.error.details["server_message"], "no such branch")
            self.assertEqual(failed.error.attempts, 1)
            self.assertEqual([problem["field"] for problem in bad.error.problems], ["room_type"])
            self.assertEqual([failed.out_task_num, bad.out_task_num, empty.out_task_num], ["T-1", "T-bad", None])
            # As task_add tells it.
            with self.assertRaises(arctos.BadTask) as alone:
                client.task_add(given[3])
            self.assertEqual(alone.exception.problems, bad.error.problems)
            self.assertEqual(set(alone.exception.details), set(bad.error.details))

    def test_what_is_no_task_is_refused_alone(self) -> None:
        deep = '{"deep":' + "[" * 100_000 + "]" * 100_000 + "}"
        wrong: list[Any] = [
            *("", "{", "5", "[]", "null", '{"a":1},{"b":2}', '{"a":1}]', "],[", '{"a":NaN}', '{"a":"\\x"}', "\ufeff{}"),
            *(deep, '{"task_remark":"\udc00"}', '{"a":1}\0', {"a": float("nan")}, {"task_remark": "\ud800"}),
        ]
        for number, task in enumerate(wrong):
            with self.subTest(number), support.Server(echo) as server:
                first, bad, last = self.client(server).task_add_many([numbered("T-0"), task, numbered("T-1")])
                self.assertTrue(first.ok and last.ok)
                self.assertIs(type(bad.error), arctos.BadTask)
                self.assertEqual((bad.index, bad.outcome), (1, arctos.Outcome.NOT_CREATED))
                self.assertEqual(sent(server), ["T-0", "T-1"])
        with support.Server() as server:
            results = list(self.client(server).task_add_many(wrong))
            self.assertEqual({type(result.error) for result in results}, {arctos.BadTask})
            self.assertEqual([result.index for result in results], list(range(len(wrong))))
            self.assertEqual(server.requests, [])

    def test_what_may_have_been_made_is_unknown(self) -> None:
        with support.Server(echo, resets=1) as server:
            broken, made = self.client(server).task_add_many(tasks(2), chunk=1)
            self.assertIs(type(broken.error), arctos.Broken)
            self.assertEqual((broken.outcome, made.ok), (arctos.Outcome.UNKNOWN, True))
        with support.Server('{"status":1,"info":{}}') as server:
            (numberless,) = self.client(server).task_add_many(tasks(1))
            self.assertIs(type(numberless.error), arctos.BadResponse)
            self.assertEqual((numberless.ok, numberless.outcome), (False, arctos.Outcome.CREATED))

    def test_one_answer_that_python_cannot_hold_leaves_the_others(self) -> None:
        deep = "[" * 100_000 + "]" * 100_000

        def answer(body: str) -> str:
            number = json.loads(body)["out_task_num"]
            if number.startswith("deep"):
                return echo(body)[:-1] + f', "deep": {deep}}}'
            return '{"status":0,"message":"] } no, \\""}' if number.startswith("refused") else echo(body)

        # Where all are made, and where one is not: the library says it in two documents.
        for names in (["deep", "made"], ["made", "deep", "refused", "made-too"]):
            with support.Server(answer) as server:
                results = list(self.client(server).task_add_many(numbered(name) for name in names))
            for name, result in zip(names, results):
                if name == "deep":
                    self.assertIs(type(result.error), arctos.BadResponse)
                    self.assertIs(result.outcome, arctos.Outcome.CREATED)
                elif name == "refused":
                    assert result.error is not None
                    self.assertEqual(result.error.details["server_message"], '] } no, "')
                    self.assertIs(result.outcome, arctos.Outcome.NOT_CREATED)
                else:
                    self.assertEqual(result.answer, json.loads(echo(json.dumps(numbered(name)))))
            self.assertEqual(len(results), len(names))

    def test_options_are_those_of_each_task(self) -> None:
        with support.Server(silent=True) as server:
            client = self.client(server)
            results = list(client.task_add_many(tasks(2), timeout_ms=200, call_id="night"))
            for result in results:
                self.assertIs(type(result.error), arctos.Timeout)
                assert result.error is not None
                self.assertEqual(result.error.details["call_id"], "night")
            count = len(server.requests)
            for wrong in ({"timeout_ms": 0}, {"call_id": ""}):
                options: dict[str, Any] = wrong
                with self.assertRaises(arctos.BadArgument) as bad:
                    list(client.task_add_many(tasks(2), **options))
                self.assertEqual([problem["field"] for problem in bad.exception.problems], list(options))
            for chunk in (0, -1):
                with self.assertRaises(ValueError):
                    client.task_add_many(tasks(2), chunk=chunk)
            self.assertEqual(len(server.requests), count)

    def test_what_was_cancelled_goes_no_further(self) -> None:
        results: list[arctos.AddResult] = []
        raised: list[arctos.ArctosError] = []
        read: list[str] = []

        def given() -> Iterator[dict[str, Any]]:
            for task in tasks(12):
                read.append(task["out_task_num"])
                yield task

        with support.Server(silent=True) as server:
            client = self.client(server, connections=2, timeout_ms=3_600_000)

            def run() -> None:
                try:
                    for result in client.task_add_many(given(), chunk=10, call_id="night"):
                        results.append(result)
                except arctos.ArctosError as error:
                    raised.append(error)

            thread = threading.Thread(target=run)
            thread.start()
            # Were the interpreter held during the call, nothing here could run.
            server.wait()
            server.wait()
            client.cancel_call("night")
            thread.join(timeout=60)
            self.assertEqual(len(server.requests), 2)
        thread.join()
        self.assertEqual([type(error) for error in raised], [arctos.Cancelled])
        self.assertIs(raised[0].outcome, arctos.Outcome.NOT_CREATED)
        self.assertEqual({type(result.error) for result in results}, {arctos.Cancelled})
        outcomes = [result.outcome for result in results]
        self.assertEqual(len(outcomes), 10)
        self.assertEqual(outcomes.count(arctos.Outcome.UNKNOWN), 2)
        self.assertEqual(outcomes.count(arctos.Outcome.NOT_CREATED), 8)
        self.assertEqual(len(read), 11)

    def test_threads_run_one_each_on_one_client(self) -> None:
        count, each = 4, 20
        runs: dict[int, list[arctos.AddResult]] = {}
        with support.Server(echo) as server:
            client = self.client(server)

            def run(name: int) -> None:
                runs[name] = list(client.task_add_many(tasks(each, name * each), chunk=7))

            threads = [threading.Thread(target=run, args=(name,)) for name in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for name, results in runs.items():
                numbers = [f"T-{number}" for number in range(name * each, (name + 1) * each)]
                self.assertEqual([result.out_task_num for result in results], numbers)
                self.assertTrue(all(result.ok for result in results))
            self.assertEqual(sent(server), sorted(f"T-{number}" for number in range(count * each)))

    def test_a_journal_keeps_what_it_keeps_for_each(self) -> None:
        with tempfile.TemporaryDirectory() as folder, support.Server(echo, resets=1) as server:
            client = self.client(server, journal={"file": Path(folder, "journal")})
            first = list(client.task_add_many(tasks(4), chunk=2))
            broken = [result.index for result in first if not result.ok]
            self.assertEqual(len(broken), 1)
            self.assertEqual(len(server.requests), 4)
            given = tasks(4)
            given[3 - broken[0]]["branch_code"] = 944
            for result, earlier in zip(client.task_add_many(given), first):
                if result.index in broken:
                    self.assertIs(type(result.error), arctos.Unresolved)
                    self.assertIs(result.outcome, arctos.Outcome.UNKNOWN)
                elif result.index == 3 - broken[0]:
                    self.assertIs(type(result.error), arctos.Conflict)
                    assert result.error is not None
                    self.assertIs(result.outcome, arctos.Outcome.CREATED)
                    self.assertEqual(result.error.recorded_answer, earlier.answer)
                else:
                    self.assertEqual(result.answer, earlier.answer)
            self.assertEqual(len(server.requests), 4)
            client.close()


class Reading(unittest.TestCase):
    """When tasks are read, and what is never sent."""

    def setUp(self) -> None:
        self.server = support.Server(echo)
        self.addCleanup(self.server.__exit__)
        self.client = arctos.Client(base_url=self.server.url, token="t")
        self.addCleanup(self.client.close)
        self.read: list[Any] = []

    def given(self, count: int, *more: Any) -> Iterator[Any]:
        for task in (*tasks(count), *more):
            self.read.append(task)
            if isinstance(task, Exception):
                raise task
            yield task

    def raised(self, kind: type[Exception], run: Iterator[arctos.AddResult]) -> tuple[int, Any]:
        """How many results came before the exception."""
        results = []
        with self.assertRaises(kind) as caught:
            for result in run:
                results.append(result)
        self.assertTrue(all(result.ok for result in results))
        self.assertEqual(list(run), [], "the iterator is at its end")
        return len(results), caught.exception

    def test_a_chunk_is_read_when_the_one_before_was_given(self) -> None:
        run = self.client.task_add_many(self.given(7), chunk=3)
        self.assertEqual(self.read, [])
        for index in range(7):
            self.assertEqual(next(run).index, index)
            expected = min((index // 3 + 1) * 3, 7)
            self.assertEqual((len(self.read), len(self.server.requests)), (expected, expected))

    def test_a_run_that_is_closed_or_dropped_sends_nothing_more(self) -> None:
        run = self.client.task_add_many(self.given(9), chunk=3)
        run.close()
        self.assertEqual((self.read, self.server.requests), ([], []))
        run = self.client.task_add_many(self.given(9), chunk=3)
        next(run)
        run.close()
        self.assertEqual(list(run), [])
        self.assertEqual((len(self.read), len(self.server.requests)), (3, 3))
        for _ in self.client.task_add_many(self.given(9), chunk=2):
            break
        self.assertEqual((len(self.read), len(self.server.requests)), (5, 5))

    def test_a_number_that_comes_again_is_not_sent_again(self) -> None:
        again = json.dumps(numbered("T-0"))
        for chunk, came in ((1, 5), (2, 4), (3, 3), (5, 5), (100, 0)):
            for repeat in (numbered("T-0"), again, again.replace("T-0", "\\u0054-0"), {"out_task_num": "T-0"}):
                self.server.requests.clear()
                run = self.client.task_add_many(self.given(5, repeat, numbered("T-9")), chunk=chunk)
                count, error = self.raised(arctos.BadTask, run)
                self.assertEqual((count, len(self.server.requests)), (came, came))
                self.assertIs(error.outcome, arctos.Outcome.NOT_CREATED)
                for named in ("'T-0'", "task 5", "task 0", f"from task {came} on"):
                    self.assertIn(named, str(error))

    def test_numbers_are_equal_as_texts_are(self) -> None:
        names = ["T-1", "t-1", "T-1 ", "Ｔ-1", "é", "e\u0301"]
        self.assertTrue(all(result.ok for result in self.client.task_add_many(numbered(name) for name in names)))
        self.assertEqual(len(self.server.requests), len(names))
        # What is no text is no number, and refused for that.
        results = list(self.client.task_add_many(numbered(number) for number in (5, 5, None, None)))
        self.assertEqual([type(result.error) for result in results], [arctos.BadTask] * 4)

    def test_another_run_knows_nothing_of_it(self) -> None:
        for _ in range(2):
            self.assertTrue(all(result.ok for result in self.client.task_add_many(tasks(2))))
        self.assertEqual(len(self.server.requests), 4)

    def test_what_the_tasks_raise_comes_before_their_chunk(self) -> None:
        for wrong, kind in ((KeyError("T-5"), KeyError), (b"{}", TypeError), ({"video": object()}, TypeError)):
            self.server.requests.clear()
            count, _ = self.raised(kind, self.client.task_add_many(self.given(5, wrong), chunk=3))
            self.assertEqual((count, len(self.server.requests)), (3, 3))

    def test_a_client_that_is_closed_on_the_way_says_so(self) -> None:
        run = self.client.task_add_many(tasks(4), chunk=2)
        self.assertTrue(next(run).ok)
        self.client.close()
        count, _ = self.raised(arctos.BadArgument, run)
        self.assertEqual((count, len(self.server.requests)), (1, 2))


class Fake(WithFake):
    def add(self, given: list[Any], *replies: tuple[int, str | None, int], **keywords: Any) -> list[arctos.AddResult]:
        """The results where the library says one thing after the other; the arrays that it was given are ``sent``."""
        client = self.client()
        rest = list(replies)
        self.sent: list[bytes] = []
        function = self.library.task_add_many

        def call(handle: Any, array: bytes, *arguments: Any) -> int:
            self.sent.append(array)
            code, text, outcome = rest.pop(0)
            self.next(code, None if text is None else text.encode(), outcome)
            reply: int = function(handle, array, *arguments)
            return reply

        with mock.patch.object(self.library, "task_add_many", call):
            try:
                return list(client.task_add_many(given, **keywords))
            finally:
                self.assertEqual(self.texts(), 0, "every text is released")
                self.assertEqual(rest, [])

    def row(self, index: int, code: int = 0, outcome: str = "created", more: str = '"answer":{"n":1}') -> str:
        return f'{{"index":{index},"code":{code},"name":"N","outcome":"{outcome}",{more}}}'

    def test_a_chunk_is_one_array_with_its_options(self) -> None:
        one, two = '{"out_task_num":"a"}', '{ "out_task_num" : "b" }'
        good = f'{{"results":[{self.row(0)}]}}'
        self.add([one, two], (0, f'{{"results":[{self.row(0)},{self.row(1)}]}}', 1))
        self.assertEqual((self.sent, self.options()), ([f"[{one},{two}]".encode()], b"NULL"))
        self.add([{"out_task_num": "a"}, two], (0, good, 1), (0, good, 1), chunk=1, timeout_ms=5, call_id="c")
        self.assertEqual(self.sent, [f"[{one}]".encode(), f"[{two}]".encode()])
        self.assertEqual(self.options(), b'{"timeout_ms":5,"call_id":"c"}')

    def test_rows_become_what_task_add_gives_or_raises(self) -> None:
        error = '"error":{"message":"what failed","attempts":2}'
        rows = [self.row(2, -12, "unknown", error), self.row(0), self.row(1, -26, "created", error)]
        document = f'{{"code":-27,"message":"some","results":[{",".join(rows)}]}}'
        made, numberless, late = self.add(tasks(3), (-27, document, 2))
        self.assertEqual((made.answer, made.error), ({"n": 1}, None))
        for result, kind, outcome in (
            (numberless, arctos.BadResponse, arctos.Outcome.CREATED),
            (late, arctos.Timeout, arctos.Outcome.UNKNOWN),
        ):
            assert result.error is not None
            self.assertIs(type(result.error), kind)
            self.assertEqual((result.outcome, result.error.outcome), (outcome, outcome))
            self.assertEqual((str(result.error), result.error.attempts), ("what failed", 2))
            self.assertEqual(result.error.name, "ARCTOS_FAKE")

    def test_a_code_or_outcome_of_a_newer_library_is_a_plain_error_and_unknown(self) -> None:
        (result,) = self.add(tasks(1), (-27, f'{{"results":[{self.row(0, -98, "half", "")[:-2]}}}]}}', 0))
        self.assertIs(type(result.error), arctos.ArctosError)
        self.assertEqual((result.code, result.outcome), (-98, arctos.Outcome.UNKNOWN))

    def test_a_row_that_is_lost_says_what_is_certain(self) -> None:
        deep = "[" * 100_000 + "]" * 100_000
        for text in (None, "", "no JSON", "[1]", "{}", '{"results":5}', '{"results":[5,{}]}', f'{{"results":{deep}}}'):
            for result in self.add(tasks(2), (0, text, 1)):
                self.assertIs(type(result.error), arctos.BadResponse)
                self.assertEqual((result.code, result.outcome), (-26, arctos.Outcome.CREATED))
            # Whatever the library says of the whole, which has no outcome.
            for result in self.add(tasks(2), (-27, text, 0)):
                self.assertIs(type(result.error), arctos.Partial)
                self.assertEqual((result.code, result.outcome), (-27, arctos.Outcome.UNKNOWN))
        # Where the library had no memory for the answer or the error.
        bare = '{"index":0,"code":0,"outcome":"created"},{"index":1,"code":-13,"outcome":"unknown"}'
        made, broken = self.add(tasks(2), (-27, f'{{"results":[{bare}]}}', 2))
        self.assertEqual((type(made.error), made.outcome), (arctos.BadResponse, arctos.Outcome.CREATED))
        self.assertEqual((type(broken.error), broken.outcome), (arctos.Broken, arctos.Outcome.UNKNOWN))

    def test_what_python_cannot_hold_hides_nothing_else(self) -> None:
        deep = f'{{"a":"}} ] \\\\","b":{"[" * 100_000}{"]" * 100_000}}}'
        rows = [
            self.row(0, more=f'"answer":{deep}'),
            self.row(1, -20, "not_created", f'"error":{deep}'),
            self.row(2, -12, "unknown", '"error":{"message":"late, \\"[{\\""}'),
            self.row(3, more='"answer" : {"message":"]}\\\\","n":[1,{"m":2}]}'),
        ]
        document = f'{{ "code" : -27 , "message":"\\"results\\":[", "results" : [{" , ".join(rows)}]}}'
        lost, refused, late, made = self.add(tasks(4), (-27, document, 2))
        self.assertEqual((type(lost.error), lost.outcome), (arctos.BadResponse, arctos.Outcome.CREATED))
        self.assertEqual((type(refused.error), refused.outcome), (arctos.Failed, arctos.Outcome.NOT_CREATED))
        self.assertEqual((type(late.error), str(late.error)), (arctos.Timeout, 'late, "[{"'))
        self.assertEqual(made.answer, {"message": "]}\\", "n": [1, {"m": 2}]})

    def test_a_refusal_of_the_whole_is_raised(self) -> None:
        for code, kind in ((-1, arctos.BadArgument), (-3, arctos.BadTask), (-99, arctos.Internal)):
            replies = [(code, '{"message":"refused"}', 2)]
            with mock.patch.object(self.library, "task_check", lambda task, answer: 0):
                with self.assertRaisesRegex(kind, "refused") as caught:
                    self.add(tasks(2), *replies)
            self.assertIs(caught.exception.outcome, arctos.Outcome.UNKNOWN)  # as the library reads it
            self.assertEqual(len(self.sent), 1)

    def test_what_makes_the_whole_unreadable_is_found_and_the_rest_is_sent(self) -> None:
        def check(task: bytes, answer: Any) -> int:
            return -3 if b"odd" in task else 0

        refused = (-3, '{"message":"refused"}', 0)
        both = f'{{"results":[{self.row(0)},{self.row(1)}]}}'
        with mock.patch.object(self.library, "task_check", check):
            results = self.add(['{"a":1}', '{"odd":1}', '{"b":1}'], refused, (0, both, 1))
            self.assertEqual(self.sent[1], b'[{"a":1},{"b":1}]')
            self.assertEqual([result.ok for result in results], [True, False, True])
            self.assertIs(type(results[1].error), arctos.BadTask)
            self.assertIs(results[1].outcome, arctos.Outcome.NOT_CREATED)
            (alone,) = self.add(['{"odd":1}'], refused)
            self.assertIs(type(alone.error), arctos.BadTask)
            with self.assertRaises(arctos.BadTask):
                self.add(['{"a":1}', '{"odd":1}'], refused, refused)

    def test_a_refused_task_is_not_kept(self) -> None:
        class Fields(dict[str, Any]):
            pass

        task = Fields(a=float("nan"))
        gone = weakref.ref(task)
        (result,) = self.add([task])
        del task
        gc.collect()
        self.assertIs(type(result.error), arctos.BadTask)
        self.assertIsNone(gone())


if __name__ == "__main__":
    unittest.main()
