"""A client against a server: what goes out, what comes back, and what threads may do."""

from __future__ import annotations

import contextlib
import decimal
import gc
import json
import sys
import threading
import tracemalloc
import types
import unittest
from typing import Any

import arctos
import support

# More digits than int() takes on a Python that limits them.
MANY_DIGITS = "7" * 5000


class Calls(unittest.TestCase):
    def test_keywords_mapping_and_text_send_the_same(self) -> None:
        with support.Server() as server, arctos.Client(base_url=server.url, token="t") as client:
            for answer in (
                client.task_add(**support.TASK),
                client.task_add(support.TASK),
                client.task_add(types.MappingProxyType(support.TASK)),
                client.task_add(json.dumps(support.TASK)),
            ):
                self.assertEqual(answer, json.loads(support.SUCCESS))
                self.assertEqual(json.loads(server.body()), support.TASK)
            self.assertEqual(len(server.requests), 4)

    def test_a_field_may_have_any_name(self) -> None:
        with support.Server() as server, arctos.Client(base_url=server.url, token="t") as client:
            client.task_add(**support.TASK, task="a", self="b", client="c")
            sent = json.loads(server.body())
            self.assertEqual((sent["task"], sent["self"], sent["client"]), ("a", "b", "c"))

    def test_digits_go_out_as_they_are(self) -> None:
        for number in ("12345678901234567890", "340282366920938463463374607431768211456", "-1", "9" * 4000):
            with support.Server() as server, arctos.Client(base_url=server.url, token="t") as client:
                client.task_add({**support.TASK, "business_id": int(number)})
                self.assertIn(f'"business_id":{number},', server.body())

    def test_digits_come_back_as_they_are(self) -> None:
        text = (
            '{"status":1,"info":{"task_num":202312210000001},"big":12345678901234567890123,'
            f'"many":{MANY_DIGITS},"short":0.1,"whole":15.0,"pi":3.14159265358979323846264338327950288,'
            '"vast":1e400,"tiny":-1e-400,"beyond":1e99999999999999999999}'
        )
        with support.Server(text) as server, arctos.Client(base_url=server.url, token="t") as client:
            answer = client.task_add(support.TASK)
        self.assertEqual(answer["info"]["task_num"], 202312210000001)
        self.assertIs(type(answer["big"]), int)
        self.assertEqual(answer["big"], 12345678901234567890123)
        self.assertEqual(format(decimal.Decimal(answer["many"]), "f"), MANY_DIGITS)
        self.assertEqual([repr(answer["short"]), repr(answer["whole"])], ["0.1", "15.0"])
        self.assertEqual(answer["pi"], decimal.Decimal("3.14159265358979323846264338327950288"))
        self.assertEqual(answer["vast"], decimal.Decimal("1e400"))
        self.assertEqual(answer["tiny"], decimal.Decimal("-1e-400"))
        self.assertEqual(answer["beyond"], float("inf"))

    def test_characters_go_out_and_come_back_as_they_are(self) -> None:
        text = '許功蓋 \U00020000 " \\ / \x01 \x7f \u2028 é'
        answer = json.dumps({"status": 1, "message": text, "info": {"task_num": "1"}}, ensure_ascii=False)
        with support.Server(answer) as server, arctos.Client(base_url=server.url, token="t") as client:
            self.assertEqual(client.task_add({**support.TASK, "task_remark": text})["message"], text)
            self.assertEqual(json.loads(server.body())["task_remark"], text)
            client.task_add({**support.TASK, "task_remark": "a\0b"})
            self.assertIn(r'"task_remark":"a\u0000b"', server.body())

    def test_a_warning_is_a_success(self) -> None:
        text = '{"status":"2","message":"room is small","info":{"task_num":"7"}}'
        with support.Server(text) as server, arctos.Client(base_url=server.url, token="t") as client:
            self.assertEqual(client.task_add(support.TASK), json.loads(text))

    def test_failures_of_the_library(self) -> None:
        with support.Server('{"status":0,"message":"no such branch"}') as server:
            with arctos.Client(base_url=server.url, token="t") as client:
                with self.assertRaises(arctos.Failed) as failed:
                    client.task_add(support.TASK)
                self.assertEqual(failed.exception.details["server_message"], "no such branch")
                self.assertIs(failed.exception.outcome, arctos.Outcome.NOT_CREATED)
                self.assertEqual(failed.exception.attempts, 1)
                with self.assertRaises(arctos.BadTask) as bad:
                    client.task_add(out_task_num="")
                fields = {problem["field"] for problem in bad.exception.problems}
                self.assertLessEqual({"out_task_num", "business_id", "video"}, fields)
                self.assertIs(bad.exception.outcome, arctos.Outcome.NOT_CREATED)
                self.assertEqual(len(server.requests), 1)
        with support.Server('{"status":1,"info":{}}') as server:
            with arctos.Client(base_url=server.url, token="t") as client:
                with self.assertRaises(arctos.BadResponse) as made:
                    client.task_add(support.TASK)
                self.assertIs(made.exception.outcome, arctos.Outcome.CREATED)

    def test_the_token_can_be_replaced(self) -> None:
        with support.Server() as server, arctos.Client(base_url=server.url) as client:
            with self.assertRaises(arctos.Forbidden) as none:
                client.task_add(support.TASK)
            self.assertIs(none.exception.outcome, arctos.Outcome.NOT_CREATED)
            self.assertEqual(server.requests, [])
            client.set_token("first-token")
            client.task_add(support.TASK)
            self.assertIn(b"bearer first-token\r\n", server.requests[-1].lower())
            client.set_token("second-token")
            for refused in ("", "no\nheader"):
                with self.assertRaises(arctos.ArctosError):
                    client.set_token(refused)
            client.task_add(support.TASK)
            self.assertIn(b"bearer second-token\r\n", server.requests[-1].lower())

    def test_a_call_with_options(self) -> None:
        with support.Server() as server, arctos.Client(base_url=server.url, token="t") as client:
            for task in (support.TASK, json.dumps(support.TASK)):
                answer = client.task_add_with(task, timeout_ms=30_000, call_id="desk-7")
                self.assertEqual(answer, json.loads(support.SUCCESS))
                self.assertEqual(json.loads(server.body()), support.TASK)
            with self.assertRaises(arctos.BadArgument) as bad:
                client.task_add_with(support.TASK, timeout_ms=0, call_id="")
            self.assertEqual([problem["field"] for problem in bad.exception.problems], ["timeout_ms", "call_id"])
            self.assertEqual(len(server.requests), 2)
        with support.Server(silent=True) as server, arctos.Client(base_url=server.url, token="t") as client:
            with self.assertRaises(arctos.Timeout) as late:
                client.task_add_with(support.TASK, timeout_ms=50, call_id="desk-7")
            self.assertEqual(late.exception.details["call_id"], "desk-7")

    def test_another_path_takes_any_json(self) -> None:
        text = '{"status":"1","rooms":[202312210000001234567890]}'
        with support.Server(text) as server, arctos.Client(base_url=server.url + "/base", token="t") as client:
            bodies: list[Any] = [{"branch_code": 943}, types.MappingProxyType({"a": "許"}), [1, None], 5, True, None]
            for body in bodies:
                self.assertEqual(client.call("/api/room/list?a=b", body), json.loads(text))
                sent = dict(body) if isinstance(body, types.MappingProxyType) else body
                self.assertEqual(json.loads(server.body()), sent)
                self.assertTrue(server.requests[-1].startswith(b"POST /base/api/room/list?a=b HTTP/1.1\r\n"))
            client.call("/x", '{"as" : "it is"}')
            self.assertEqual(server.body(), '{"as" : "it is"}')
            count = len(server.requests)
            for path, body in (("/api/task/do_add", {}), ("/a/../b", {}), ("x", {}), ("/x", "{"), ("/x", "")):
                with self.assertRaises(arctos.BadArgument) as bad:
                    client.call(path, body)
                self.assertIs(bad.exception.outcome, arctos.Outcome.NOT_CREATED)
            self.assertEqual(len(server.requests), count)
        with support.Server('{"status":0,"message":"no such branch"}') as server:
            with arctos.Client(base_url=server.url, token="t") as client, self.assertRaises(arctos.Failed) as failed:
                client.call("/x", {})
            self.assertEqual(failed.exception.details["server_message"], "no such branch")

    def test_what_may_pass_is_tried_again(self) -> None:
        with support.Server(busy=1) as server, arctos.Client(base_url=server.url, token="t") as client:
            self.assertEqual(client.task_add(support.TASK)["info"]["task_num"], "202312210000001")
            self.assertEqual(len(server.requests), 2)
        with support.Server(busy=1) as server, arctos.Client(base_url=server.url, token="t", retries=0) as client:
            with self.assertRaises(arctos.Busy) as busy:
                client.task_add(support.TASK)
            self.assertEqual((busy.exception.attempts, len(server.requests)), (1, 1))

    def test_task_check_sends_nothing(self) -> None:
        checked = arctos.task_check({**support.TASK, "business_id": 12345678901234567890, "vidoe": "x"})
        self.assertEqual(checked["path"], "/api/task/do_add")
        body = checked["body"]
        self.assertEqual((json.loads(body) if isinstance(body, str) else body)["business_id"], 12345678901234567890)
        self.assertEqual([note["field"] for note in checked["notes"]], ["vidoe"])
        self.assertEqual(arctos.task_check(**support.TASK)["notes"], [])
        with self.assertRaises(arctos.BadTask) as bad:
            arctos.task_check()
        self.assertIs(bad.exception.outcome, arctos.Outcome.NOT_CREATED)
        self.assertGreater(len(bad.exception.problems), 3)


class Lifetime(unittest.TestCase):
    def test_the_configuration_in_force_shows_no_secret(self) -> None:
        with arctos.Client(base_url="https://arctos.bank.example", token="SECRET-token", timeout_ms=2500) as client:
            self.assertEqual(client.config["base_url"].rstrip("/"), "https://arctos.bank.example")
            self.assertEqual(client.config["timeout_ms"], 2500)
            self.assertEqual(client.config["token"], "***")
            self.assertEqual(client.config["strict"], False)
            self.assertNotIn("SECRET", repr(client) + repr(vars(client)))
            self.assertIn("arctos.bank.example", repr(client))
            self.assertNotIn("closed", repr(client))
        self.assertIn("closed", repr(client))

    def test_what_is_left_out_or_none_is_the_librarys_default(self) -> None:
        with arctos.Client(base_url="https://a.example") as plain:
            with arctos.Client(base_url="https://a.example", token=None, timeout_ms=None, tls=None) as none:
                self.assertEqual(none.config, plain.config)

    def test_every_key_reaches_the_library(self) -> None:
        given: dict[str, Any] = {
            "base_url": "http://arctos.bank.example",
            "allow_http": True,
            "timeout_ms": 1234,
            "connect_timeout_ms": 567,
            "max_response_bytes": 8901,
            "strict": True,
            "user_agent": "branch/1",
            "retries": 7,
            "retry_503": True,
            "server_dedupes": True,
            "connections": 3,
            "idle_timeout_ms": 0,
            "keep_bodies": True,
        }
        with arctos.Client(token="t", tls=types.MappingProxyType({"roots": "bundled"}), **given) as client:
            for key, value in given.items():
                self.assertEqual(str(client.config[key]).rstrip("/"), str(value))
            self.assertEqual(client.config["tls"]["roots"], "bundled")
            self.assertEqual(set(client.config), {*given, "token", "tls"})

    def test_a_wrong_configuration_lists_every_problem(self) -> None:
        with self.assertRaises(arctos.BadConfig) as bad:
            arctos.Client(base_url="ftp://a.example", timeout_ms=0, tls={"root": "system"})
        fields = [problem["field"] for problem in bad.exception.problems]
        self.assertEqual(sorted(fields), ["base_url", "timeout_ms", "tls.root"])
        misspelt: dict[str, Any] = {"timeot_ms": 1}
        with self.assertRaises(TypeError):
            arctos.Client(base_url="https://a.example", **misspelt)

    def test_a_closed_client_says_so(self) -> None:
        with support.Server() as server:
            client = arctos.Client(base_url=server.url, token="t")
            with client as same:
                self.assertIs(same, client)
            for call in (
                lambda: client.task_add(support.TASK),
                lambda: client.task_add_with(support.TASK),
                lambda: next(client.task_add_many([support.TASK])),
                lambda: client.call("/x", {}),
                lambda: client.set_token("t"),
                client.diagnose,
                client.stats,
                client.journal_list,
                lambda: client.journal_resolve("N", "not_created", "me"),
                client.cancel,
                lambda: client.cancel_call("c"),
            ):
                with self.assertRaises(arctos.BadArgument) as closed:
                    call()
                self.assertIs(closed.exception.outcome, arctos.Outcome.NOT_CREATED)
                self.assertIn("client", str(closed.exception))
            client.close()
            client.close()
            self.assertEqual(server.requests, [])

    def test_an_exception_passes_through_the_context_manager(self) -> None:
        with self.assertRaises(KeyError), arctos.Client(base_url="http://127.0.0.1:1") as client:
            raise KeyError
        self.assertIn("closed", repr(client))

    def test_nothing_piles_up(self) -> None:
        def work() -> None:
            with arctos.Client(base_url="http://127.0.0.1:1", token="t") as client:
                client.set_token("u")
                for task in ("{", {"out_task_num": ""}):
                    with contextlib.suppress(arctos.BadTask):
                        client.task_add(task)
            arctos.task_check(support.TASK)

        def measure() -> tuple[int, int]:
            gc.collect()
            return len(gc.get_objects()), tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        rounds = 1000
        for _ in range(rounds):  # until Python's own caches are full
            work()
        objects, memory = measure()
        for _ in range(rounds):
            work()
        more_objects, more_memory = measure()
        # The smallest object has 16 bytes: one kept by each round would exceed both.
        self.assertLess(more_objects - objects, rounds // 2)
        self.assertLess(more_memory - memory, rounds * 8)

    def test_what_went_in_is_not_kept(self) -> None:
        task = json.dumps(support.TASK) + " "
        with support.Server() as server, arctos.Client(base_url=server.url, token="t") as client:
            before = sys.getrefcount(task)
            for _ in range(20):
                client.task_add(task)
            self.assertEqual(sys.getrefcount(task), before)


class Threads(unittest.TestCase):
    def test_a_call_that_hangs_holds_up_no_other(self) -> None:
        ended: list[arctos.ArctosError] = []
        with support.Server() as quick, support.Server(silent=True) as silent:
            hanging = arctos.Client(base_url=silent.url, token="t", timeout_ms=30_000)

            def hang() -> None:
                try:
                    hanging.task_add(support.TASK)
                except arctos.ArctosError as error:
                    ended.append(error)

            threads = [threading.Thread(target=hang) for _ in range(4)]
            for thread in threads:
                thread.start()
            for _ in threads:
                silent.wait()
            # Were the interpreter held during a call, nothing here could run until those calls end.
            with arctos.Client(base_url=quick.url, token="t") as client:
                self.assertEqual(client.task_add(support.TASK)["info"]["task_num"], "202312210000001")
            self.assertEqual(ended, [])
            hanging.close()  # returns although calls are in flight
            self.assertEqual(ended, [])
        for thread in threads:
            thread.join()
        self.assertEqual([type(error) for error in ended], [arctos.Broken] * len(threads))
        self.assertEqual({error.outcome for error in ended}, {arctos.Outcome.UNKNOWN})

    def test_calls_are_cancelled_by_id_and_all_at_once(self) -> None:
        ended: dict[str, arctos.ArctosError] = {}
        with support.Server(silent=True) as server:
            with arctos.Client(base_url=server.url, token="t", timeout_ms=3_600_000) as client:

                def hang(name: str) -> None:
                    try:
                        if name == "other":
                            client.call("/x", {}, call_id=name)
                        else:
                            client.task_add_with(support.TASK, call_id=name)
                    except arctos.ArctosError as error:
                        ended[name] = error

                threads = {name: threading.Thread(target=hang, args=(name,)) for name in ("one", "two", "other")}
                for thread in threads.values():
                    thread.start()
                for _ in threads:
                    server.wait()
                client.cancel_call("nobody")
                client.cancel_call("one")
                threads["one"].join()
                self.assertEqual(set(ended), {"one"})
                client.cancel()
                for thread in threads.values():
                    thread.join()
                for name, error in ended.items():
                    self.assertIs(type(error), arctos.Cancelled)
                    self.assertIs(error.outcome, arctos.Outcome.UNKNOWN)
                    self.assertEqual(error.details["call_id"], name)
                self.assertEqual(set(ended), set(threads))
                # Later calls go their way.
                with self.assertRaises(arctos.Timeout):
                    client.task_add_with(support.TASK, timeout_ms=50)

    def test_threads_share_a_client(self) -> None:
        count, rounds = 8, 25
        failures: list[BaseException] = []
        with support.Server() as server, arctos.Client(base_url=server.url, token="t") as client:

            def work(name: int) -> None:
                try:
                    for number in range(rounds):
                        client.task_add({**support.TASK, "out_task_num": f"{name}-{number}"})
                except BaseException as error:
                    failures.append(error)

            threads = [threading.Thread(target=work, args=(name,)) for name in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(failures, [])
            sent = [json.loads(request.split(b"\r\n\r\n", 1)[1])["out_task_num"] for request in server.requests]
        self.assertEqual(sorted(sent), sorted(f"{name}-{number}" for name in range(count) for number in range(rounds)))


if __name__ == "__main__":
    unittest.main()
