"""A diagnosis, by the method and by ``python -m arctos diagnose``, and the keys that a bank's network needs."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

import arctos
import support
from test_errors import WithFake

STEPS = ["route", "name", "connect", "proxy", "tls", "server", "clock", "token", "library"]
NOBODY = "http://127.0.0.1:1"
TOKEN = "SECRET-token"


def states(steps: list[dict[str, Any]]) -> dict[str, str]:
    return {step["step"]: step["state"] for step in steps}


class Diagnose(unittest.TestCase):
    def test_the_steps_of_a_server_that_is_well(self) -> None:
        with support.Server() as server, arctos.Client(base_url=server.url, token=TOKEN) as client:
            diagnosis = client.diagnose()
            self.assertEqual(list(diagnosis), ["steps"])
            self.assertEqual([step["step"] for step in diagnosis["steps"]], STEPS)
            self.assertEqual(states(diagnosis["steps"])["server"], "ok")
            self.assertEqual(diagnosis["steps"][5]["http_status"], 200)
            self.assertEqual(len(server.requests), 1)
            self.assertTrue(server.requests[0].startswith(b"HEAD / HTTP/1.1\r\n"))
            self.assertNotIn(TOKEN.encode(), server.requests[0])
            self.assertNotIn(b"authorization", server.requests[0].lower())

    def test_the_first_step_that_fails_is_raised_with_all_of_them(self) -> None:
        with arctos.Client(base_url=NOBODY) as client, self.assertRaises(arctos.Connect) as failed:
            client.diagnose()
        error = failed.exception
        self.assertEqual([step["step"] for step in error.steps], STEPS)
        self.assertEqual(error.details["steps"], error.steps)
        self.assertEqual(states(error.steps)["connect"], "failed")
        self.assertEqual(states(error.steps)["server"], "skipped")
        self.assertEqual(str(error), error.steps[2]["detail"])
        self.assertIs(error.outcome, arctos.Outcome.NOT_CREATED)
        self.assertEqual(pickle.loads(pickle.dumps(error)).steps, error.steps)
        with support.Server() as server, arctos.Client(base_url=server.url) as client:
            with self.assertRaises(arctos.Forbidden) as forbidden:
                client.diagnose()
            self.assertEqual(states(forbidden.exception.steps)["server"], "ok")
        with self.assertRaises(arctos.BadArgument) as closed:
            client.diagnose()
        self.assertEqual(closed.exception.steps, [])

    def test_a_deadline_says_nothing_of_an_appointment(self) -> None:
        with support.Server(silent=True) as server:
            with arctos.Client(base_url=server.url, token=TOKEN, timeout_ms=200) as client:
                with self.assertRaises(arctos.Timeout) as late:
                    client.diagnose()
        self.assertIs(late.exception.outcome, arctos.Outcome.NOT_CREATED)
        self.assertEqual(states(late.exception.steps)["server"], "failed")


class Fake(WithFake):
    def test_documents_that_are_not_what_they_should_be(self) -> None:
        client = self.client()
        self.next(0, b'{"steps":[]}', 1)
        self.assertEqual(client.diagnose(), {"steps": []})
        self.next(0, None, 1)
        with self.assertRaises(MemoryError):
            client.diagnose()
        for text in (None, b"{", b'{"steps":5}'):
            self.next(-12, text, 2)
            error = self.failure(client.diagnose)
            self.assertEqual((error.steps, error.outcome), ([], arctos.Outcome.NOT_CREATED))


class Keys(unittest.TestCase):
    def test_a_proxy_with_a_password_and_a_token_from_a_file(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "token")
            file.write_text(f"\ufeff{TOKEN}\r\n", encoding="utf-8")
            for given in (file, str(file)):
                with support.Server() as server, arctos.Client(base_url=server.url, token_file=given) as client:
                    client.task_add(support.TASK)
                    self.assertIn(f"bearer {TOKEN}\r\n".lower().encode(), server.requests[-1].lower())
                    self.assertEqual(client.config["token_file"], str(file))
                    self.assertNotIn(TOKEN, str(client.config))
        with arctos.Client(base_url="https://a.example", proxy="http://u:SECRET@p.example:1") as client:
            self.assertEqual(client.config["proxy"], "http://u:***@p.example:1")

    def test_a_log_in(self) -> None:
        login: arctos.LoginKeys = {"path": "/log-in", "body": {"password": TOKEN}, "token_pointer": "/info/task_num"}
        with support.Server() as server, arctos.Client(base_url=server.url, login=login) as client:
            client.task_add(support.TASK)
            self.assertEqual([request.split(b" ")[1] for request in server.requests], [b"/log-in", b"/api/task/do_add"])
            self.assertIn(b"bearer 202312210000001\r\n", server.requests[-1].lower())
            self.assertEqual(client.config["login"]["refresh_on"], [401, 403])
            self.assertNotIn(TOKEN, str(client.config))

    def test_files_of_tls_may_be_paths(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            missing = Path(folder, "missing.pem")
            files: arctos.TlsKeys = {"cert_file": missing, "key_file": str(missing)}
            others: arctos.TlsKeys = {"min_version": "1.1", "pins": ["x"]}
            for tls, expected in ((files, {"tls.cert_file"}), (others, {"tls.min_version", "tls.pins"})):
                with self.assertRaises(arctos.BadConfig) as bad:
                    arctos.Client(base_url="https://a.example", tls=tls)
                fields = {problem["field"] for problem in bad.exception.problems}
                self.assertLessEqual(expected, fields)

    def test_a_whole_configuration_as_a_text(self) -> None:
        with support.Server() as server:
            with arctos.Client.from_json(json.dumps({"base_url": server.url, "token": TOKEN})) as client:
                client.task_add(support.TASK)
                self.assertEqual(client.config["base_url"], server.url)
        for text in ("{", '{"base_url":1}', '{"base_url":"https://a.example","tokne":"x"}', "\0"):
            with self.assertRaises(arctos.BadConfig):
                arctos.Client.from_json(text)
        with self.assertRaises(TypeError):
            arctos.Client.from_json({})  # type: ignore[arg-type]


class Program(unittest.TestCase):
    def command(self, *arguments: str) -> tuple[list[str], dict[str, str]]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(support.PACKAGE.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONIOENCODING": "ascii",
            "ARCTOS_TOKEN": TOKEN,
        }
        return [sys.executable, "-X", "dev", "-m", "arctos", *arguments], environment

    def run_it(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command, inherited = self.command(*arguments)
        ended = subprocess.run(
            command,
            env={**inherited, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertNotIn(TOKEN, ended.stdout + ended.stderr)
        self.assertNotIn("Traceback", ended.stderr)
        return ended

    def test_a_server_that_is_well(self) -> None:
        with support.Server() as server:
            ended = self.run_it("diagnose", "--base-url", server.url)
            self.assertEqual((ended.returncode, ended.stderr), (0, ""))
            lines = ended.stdout.splitlines()
            names = [line.split()[1] for line in lines if not line.startswith((" ", "ARCTOS_"))]
            self.assertEqual((names, lines[-1]), (STEPS, "ARCTOS_OK"))
            self.assertRegex(lines[0], r"^ok       route          0 ms  direct to 127\.0\.0\.1:\d+$")
            self.assertNotIn("->", ended.stdout)

    def test_a_step_that_fails(self) -> None:
        ended = self.run_it("diagnose", "--base-url", NOBODY, "--timeout-ms", "5000")
        self.assertEqual((ended.returncode, ended.stderr), (1, ""))
        lines = ended.stdout.splitlines()
        failed = next(index for index, line in enumerate(lines) if line.startswith("failed "))
        self.assertRegex(lines[failed], r"^failed   connect +\d+ ms  no connection to 127\.0\.0\.1:1: ")
        self.assertRegex(lines[failed + 1], r"^ {30}-> check host and port in base_url")
        self.assertRegex(lines[failed + 2], r"^skipped  proxy ")
        self.assertEqual(lines[-1], "ARCTOS_CONNECT")
        proxied = self.run_it("diagnose", "--base-url", "https://a.example", "--proxy", NOBODY)
        self.assertEqual(proxied.returncode, 1)
        self.assertIn("no connection to the proxy 127.0.0.1:1", proxied.stdout)

    def test_the_document_and_the_log(self) -> None:
        ended = self.run_it("diagnose", "--base-url", NOBODY, "--json", "-v")
        self.assertEqual(ended.returncode, 1)
        document = json.loads(ended.stdout)
        self.assertEqual((document["name"], [step["step"] for step in document["steps"]]), ("ARCTOS_CONNECT", STEPS))
        events = [json.loads(line) for line in ended.stderr.splitlines()]
        self.assertEqual([event["event"] for event in events], ["failure"])

    def test_a_configuration_from_a_file(self) -> None:
        with support.Server() as server, tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "config.json")
            file.write_text(json.dumps({"base_url": server.url, "token": TOKEN}), encoding="utf-8")
            self.assertEqual(self.run_it("diagnose", "--config", str(file)).returncode, 0)
            # The environment's token is none of it.
            file.write_text(json.dumps({"base_url": server.url}), encoding="utf-8")
            ended = self.run_it("diagnose", "--config", str(file))
            self.assertEqual((ended.returncode, ended.stdout.splitlines()[-1]), (1, "ARCTOS_FORBIDDEN"))
            token = Path(folder, "token")
            token.write_text(TOKEN, encoding="utf-8")
            arguments = ("diagnose", "--base-url", server.url, "--token-file", str(token))
            self.assertEqual(self.run_it(*arguments).returncode, 0)

            for text, word in (
                (b"{", "ARCTOS_BAD_CONFIG: "),
                (b"", "ARCTOS_BAD_CONFIG: "),
                (b"\xff", "cannot be read"),
                (b'{"base_url":"https://a.example","tokne":"x"}', "tokne"),
            ):
                file.write_bytes(text)
                ended = self.run_it("diagnose", "--config", str(file))
                self.assertEqual((ended.returncode, ended.stdout), (2, ""))
                self.assertEqual(len(ended.stderr.splitlines()), 1)
                self.assertIn(word, ended.stderr)
            ended = self.run_it("diagnose", "--config", str(Path(folder, "missing")))
            self.assertEqual((ended.returncode, ended.stdout), (2, ""))
            self.assertIn("cannot be read", ended.stderr)

    def test_what_is_no_way_to_call_it(self) -> None:
        for arguments, word in (
            ((), "diagnose"),
            (("diagnose",), "--base-url"),
            (("diagnose", "--config", "x", "--base-url", NOBODY), "not allowed with"),
            (("diagnose", "--config", "x", "--proxy", "env"), "--proxy stands in the configuration"),
            (("diagnose", "--base-url", "ftp://a.example"), "ARCTOS_BAD_CONFIG: "),
            (("diagnose", "--base-url", NOBODY, "--ca-file", "/nowhere"), "tls.ca_file"),
        ):
            ended = self.run_it(*arguments)
            self.assertEqual((ended.returncode, ended.stdout), (2, ""), arguments)
            self.assertIn(word, ended.stderr)
        ended = self.run_it("diagnose", "--base-url", NOBODY, ARCTOS_LIBRARY="/nowhere.so")
        self.assertEqual((ended.returncode, ended.stdout), (2, ""))
        self.assertIn("/nowhere.so: no such file", ended.stderr)

    def test_what_cannot_be_printed_is_no_success(self) -> None:
        with support.Server() as server:
            command, environment = self.command("diagnose", "--base-url", server.url)
            for redirection in (">/dev/full", ">&-"):
                shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", *command]
                ended = subprocess.run(shell, env=environment, stderr=subprocess.PIPE, text=True, timeout=60)
                self.assertEqual((ended.returncode, ended.stderr), (2, "the steps could not be printed\n"))

    def test_an_interrupt_ends_it_with_its_steps(self) -> None:
        with support.Server(silent=True) as server:
            command, environment = self.command("diagnose", "--base-url", server.url, "--timeout-ms", "3600000")
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            server.wait()
            process.send_signal(signal.SIGINT)
            stdout, _ = process.communicate(timeout=60)
        self.assertEqual((process.returncode, stdout.splitlines()[-1]), (1, "ARCTOS_CANCELLED"))
        self.assertRegex(stdout, r"(?m)^failed   server ")


if __name__ == "__main__":
    unittest.main()
