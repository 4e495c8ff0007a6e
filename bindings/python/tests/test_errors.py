"""Every failure becomes the exception that says what the library said."""

from __future__ import annotations

import copy
import ctypes
import pickle
import tempfile
import unittest
from typing import Any, Callable

import arctos
import support
from arctos import _codes, _errors, _library

DOCUMENT = (
    '{"code":%d,"name":"ARCTOS_FAKE","message":"what failed, and where","outcome":"unknown","attempts":2,'
    '"problems":[{"field":"video","problem":"is missing"}]}'
)


class WithFake(unittest.TestCase):
    """Tests that use the fake library in place of the real one."""

    library: _library.Library
    next: Any
    texts: Any
    clients: Any
    options: Any
    event: Any

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.library = _library.Library(support.build_fake(folder.name))
        functions = ctypes.CDLL(cls.library.path)
        cls.next = functions.fake_next
        cls.next.argtypes = [ctypes.c_int32, ctypes.c_char_p, ctypes.c_int32]
        cls.texts = functions.fake_texts
        cls.clients = functions.fake_clients
        cls.options = functions.fake_options
        cls.options.restype = ctypes.c_char_p
        cls.event = functions.fake_event
        cls.event.argtypes = [ctypes.c_int32, ctypes.c_char_p]

    def setUp(self) -> None:
        fake = support.using(self.library)
        fake.__enter__()
        self.addCleanup(fake.__exit__, None, None, None)

    def client(self) -> arctos.Client:
        self.next(0, b'{"base_url":"https://fake.example"}', 1)
        client = arctos.Client(base_url="https://fake.example")
        self.addCleanup(client.close)
        return client

    def failure(self, call: Callable[..., Any], *arguments: Any) -> arctos.ArctosError:
        with self.assertRaises(arctos.ArctosError) as caught:
            call(*arguments)
        self.assertEqual(self.texts(), 0, "every text is released")
        return caught.exception


class Exceptions(WithFake):
    def test_each_code_raises_its_class(self) -> None:
        client = self.client()
        for code, kind in _errors.CLASSES.items():
            self.next(code, (DOCUMENT % code).encode(), 2)
            error = self.failure(client.task_add, support.TASK)
            self.assertIs(type(error), kind)
            self.assertEqual(str(error), "what failed, and where")
            self.assertEqual((error.code, error.name), (code, "ARCTOS_FAKE"))
            self.assertIs(error.outcome, arctos.Outcome.UNKNOWN)
            self.assertEqual(error.attempts, 2)
            self.assertEqual(error.problems, [{"field": "video", "problem": "is missing"}])
            self.assertEqual(error.details["code"], code)

    def test_the_outcome_is_what_the_library_reads(self) -> None:
        client = self.client()
        for outcome in arctos.Outcome:
            self.next(-12, None, outcome)
            self.assertIs(self.failure(client.task_add, support.TASK).outcome, outcome)

    def test_a_code_of_a_newer_library_is_a_plain_error(self) -> None:
        client = self.client()
        self.next(-98, (DOCUMENT % -98).encode(), 2)
        error = self.failure(client.task_add, support.TASK)
        self.assertIs(type(error), arctos.ArctosError)
        self.assertEqual((error.code, error.outcome), (-98, arctos.Outcome.UNKNOWN))

    def test_without_a_readable_document_code_and_outcome_remain(self) -> None:
        client = self.client()
        for text in (None, b"", b"no JSON", b"[1]", b"{}", b'{"message":null}', b"[" * 100_000):
            self.next(-13, text, 2)
            error = self.failure(client.task_add, support.TASK)
            self.assertIs(type(error), arctos.Broken)
            self.assertEqual((str(error), error.outcome), ("ARCTOS_FAKE", arctos.Outcome.UNKNOWN))
            self.assertEqual((error.attempts, error.problems), (0, []))

    def test_what_sends_nothing_made_nothing(self) -> None:
        client = self.client()
        self.next(-99, None, 2)
        for call in (
            lambda: arctos.Client(base_url="https://fake.example"),
            lambda: client.set_token("t"),
            lambda: arctos.task_check(support.TASK),
            client.journal_list,
            lambda: client.journal_resolve("N", "not_created", "me"),
            client.cancel,
            lambda: client.cancel_call("c-1"),
        ):
            error = self.failure(call)
            self.assertIs(type(error), arctos.Internal)
            self.assertIs(error.outcome, arctos.Outcome.NOT_CREATED)

    def test_a_success_that_python_cannot_hold_is_made(self) -> None:
        client = self.client()
        for text in (None, b'{"deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}"):
            for call in (
                lambda: client.task_add(support.TASK),
                lambda: client.task_add_with(support.TASK),
                lambda: client.call("/x", {}),
            ):
                self.next(0, text, 1)
                error = self.failure(call)
                self.assertIs(type(error), arctos.BadResponse)
                self.assertEqual((error.code, error.name), (-26, "ARCTOS_BAD_RESPONSE"))
                self.assertIs(error.outcome, arctos.Outcome.CREATED)

    def test_every_call_raises_with_its_outcome(self) -> None:
        client = self.client()
        for call in (lambda: client.task_add_with(support.TASK), lambda: client.call("/x", [])):
            for outcome in arctos.Outcome:
                self.next(-14, (DOCUMENT % -14).encode(), outcome)
                error = self.failure(call)
                self.assertIs(type(error), arctos.Cancelled)
                self.assertIs(error.outcome, outcome)

    def test_options_are_those_that_are_given(self) -> None:
        client = self.client()
        for given, text in (
            ({}, b"NULL"),
            ({"timeout_ms": None, "call_id": None}, b"NULL"),
            ({"timeout_ms": 5}, b'{"timeout_ms":5}'),
            ({"call_id": 'Schalter "7"'}, b'{"call_id":"Schalter \\"7\\""}'),
            ({"timeout_ms": 5, "call_id": "c"}, b'{"timeout_ms":5,"call_id":"c"}'),
        ):
            options: dict[str, Any] = given
            self.next(0, b'{"status":1}', 1)
            for answer in (client.task_add_with(support.TASK, **options), client.call("/x", "{}", **options)):
                self.assertEqual(answer, {"status": 1})
                self.assertEqual(self.options(), text)

    def test_a_missing_text_elsewhere_is_a_memory_error(self) -> None:
        self.next(0, None, 1)
        with self.assertRaises(MemoryError):
            arctos.task_check(support.TASK)
        with self.assertRaises(MemoryError):
            arctos.Client(base_url="https://fake.example")
        self.assertEqual((self.texts(), self.clients()), (0, 0))

    def test_copies_and_pickles_are_equal(self) -> None:
        client = self.client()
        self.next(-12, (DOCUMENT % -12).encode(), 2)
        error = self.failure(client.task_add, support.TASK)
        for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
            self.assertIs(type(twin), arctos.Timeout)
            self.assertEqual(str(twin), str(error))
            self.assertEqual(vars(twin), vars(error))

    def test_tracebacks_name_the_public_class(self) -> None:
        for name in arctos.__all__:
            self.assertEqual(getattr(arctos, name).__module__, "arctos")

    def test_outcomes_that_are_not_zero_may_be_appointments(self) -> None:
        self.assertEqual([outcome.name for outcome in sorted(arctos.Outcome)], ["NOT_CREATED", "CREATED", "UNKNOWN"])
        self.assertEqual([int(outcome) for outcome in sorted(arctos.Outcome)], [0, 1, 2])


class Releasing(WithFake):
    def test_every_text_and_client_is_released(self) -> None:
        self.assertEqual((self.texts(), self.clients()), (0, 0))
        with self.client() as client:
            self.assertEqual((self.texts(), self.clients()), (0, 1))
            client.task_add(support.TASK)
            client.set_token("t")
            arctos.task_check(support.TASK)
            self.assertEqual(self.texts(), 0)
        self.assertEqual(self.clients(), 0)
        client.close()
        self.assertEqual(self.clients(), 0)

    def test_a_client_that_is_dropped_is_released_at_once(self) -> None:
        self.next(0, b"{}", 1)
        client = arctos.Client(base_url="https://fake.example")
        self.assertEqual(self.clients(), 1)
        del client  # not by the garbage collector: it holds itself in no circle
        self.assertEqual(self.clients(), 0)

    def test_a_text_that_cannot_be_read_is_released(self) -> None:
        client = self.client()
        self.next(0, b"\xff", 1)
        with self.assertRaises(UnicodeDecodeError):
            client.task_add(support.TASK)
        self.assertEqual(self.texts(), 0)


class Refusals(unittest.TestCase):
    """What this package refuses before the library sees it."""

    def refused(self, kind: type[arctos.ArctosError], call: Any, *arguments: Any, **keywords: Any) -> None:
        with self.assertRaises(kind) as caught:
            call(*arguments, **keywords)
        error = caught.exception
        self.assertIs(type(error), kind)
        self.assertEqual(_codes.NAMES[error.code], error.name)
        self.assertIs(error.outcome, arctos.Outcome.NOT_CREATED)
        self.assertEqual(error.details, {})
        # An exception below it would carry the text along, and so what nobody may see.
        self.assertIsNone(error.__cause__)
        self.assertIsNone(error.__context__)
        self.assertNotIn("SECRET", repr(error))

    def test_tasks_that_are_no_json(self) -> None:
        circle: dict[str, Any] = {}
        circle["circle"] = circle
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        with support.Server() as server, arctos.Client(base_url=server.url, token="t") as client:
            for function in (client.task_add, arctos.task_check):
                for task in (
                    {**support.TASK, "task_remark": "SECRET \ud800"},
                    {**support.TASK, "\udfff": 1},
                    {**support.TASK, "business_id": float("nan")},
                    {**support.TASK, "business_id": float("inf")},
                    circle,
                    {"deep": deep},
                    '{"task_remark":"SECRET \udc00"}',
                    '{"business_id":15}\0',
                ):
                    self.refused(arctos.BadTask, function, task)
            self.assertEqual(server.requests, [])

    def test_wrong_types_are_type_errors(self) -> None:
        with support.Server() as server, arctos.Client(base_url=server.url, token="t") as client:
            for function in (client.task_add, arctos.task_check):
                tasks: list[Any] = [b"{}", 5, ["a"], object()]
                for task in tasks:
                    with self.assertRaises(TypeError):
                        function(task)
                with self.assertRaises(TypeError):
                    function(support.TASK, video=True)
                with self.assertRaises(TypeError):
                    function("{}", video=True)
                with self.assertRaises(TypeError):
                    function(video=object())
            wrong: Any = b"t"
            for call in (
                lambda: client.set_token(wrong),
                lambda: client.task_add_with(wrong),
                lambda: client.task_add_many(5),
                lambda: client.task_add_many(support.TASK),
                lambda: client.task_add_many("[]"),
                lambda: client.task_add_many([], chunk=wrong),
                lambda: client.task_add_many([], call_id=wrong),
                lambda: next(client.task_add_many([wrong])),
                lambda: next(client.task_add_many([support.TASK, wrong])),
                lambda: client.call(wrong, {}),
                lambda: client.call("/x", wrong),
                lambda: client.call("/x", {}, call_id=wrong),
                lambda: client.cancel_call(wrong),
                lambda: client.journal_list(wrong),
                lambda: client.journal_list(since=wrong),
                lambda: client.journal_list(until=wrong),
                lambda: client.journal_resolve(wrong, "not_created", "me"),
                lambda: client.journal_resolve("N", "not_created", wrong),
                lambda: arctos.set_log(wrong),
                lambda: arctos.set_log(None, wrong),
            ):
                with self.assertRaises(TypeError):
                    call()
            self.assertEqual(server.requests, [])

    def test_tokens_and_configurations(self) -> None:
        with arctos.Client(base_url="http://127.0.0.1:1") as client:
            for token in ("SECRET\0", "SECRET\ud800"):
                self.refused(arctos.BadArgument, client.set_token, token)
                self.refused(arctos.BadArgument, client.cancel_call, token)
                self.refused(arctos.BadArgument, client.journal_resolve, token, "not_created", "me")
                self.refused(arctos.BadArgument, client.journal_resolve, "N", "not_created", "SECRET\ud800")
                self.refused(arctos.BadArgument, client.journal_list, "SECRET\ud800")
                self.refused(arctos.BadArgument, client.call, token, {})
                self.refused(arctos.BadArgument, client.call, "/x", token)
                self.refused(arctos.BadArgument, client.call, "/x", {"a": "SECRET\ud800"})
                self.refused(arctos.BadArgument, client.call, "/x", [float("nan")])
                self.refused(arctos.BadArgument, client.call, "/x", {}, call_id="SECRET\ud800")
        self.refused(arctos.BadConfig, arctos.Client, base_url="http://127.0.0.1:1", token="SECRET\ud800")
        self.refused(arctos.BadConfig, arctos.Client, base_url="http://127.0.0.1:1", timeout_ms=float("nan"))


if __name__ == "__main__":
    unittest.main()
