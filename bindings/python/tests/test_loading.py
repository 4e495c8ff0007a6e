"""The library is found where the documentation says, and an error tells every place that was tried."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest
from unittest import mock

import support
from arctos import _library

FILE = _library._FILE


class Loading(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = os.path.realpath(folder.name)
        self.real = _library.library().path

    def run_python(self, code: str, path: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs code in another Python that imports the package from ``path``."""
        kept = {name: value for name, value in os.environ.items() if name not in ("ARCTOS_LIBRARY", "LD_LIBRARY_PATH")}
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**kept, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **environment},
            cwd=self.folder,
            capture_output=True,
            text=True,
        )

    def loaded(self, path: str, **environment: str) -> str:
        """The path of the library that the package at ``path`` loads."""
        done = self.run_python("from arctos import _library; print(_library.library().path)", path, **environment)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.rstrip("\n")

    def refused(self, path: str, **environment: str) -> str:
        """The error of the package at ``path``, which loads no library."""
        code = (
            "import arctos\n"  # importing loads nothing, so it does not fail
            "try:\n"
            "    arctos.version()\n"
            "except ImportError as error:\n"
            "    assert type(error) is arctos.LoadError\n"
            "    print(error)\n"
        )
        done = self.run_python(code, path, **environment)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertNotEqual(done.stdout, "")
        return done.stdout

    def copy_package(self, *folders: str) -> str:
        """Copies the package into a folder of its own, and gives the folder to import it from."""
        path = os.path.join(self.folder, *folders)
        ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.dylib", "*.dll")
        shutil.copytree(str(support.PACKAGE), os.path.join(path, "arctos"), ignore=ignored)
        return path

    def copy_library(self, *folders: str) -> str:
        """Copies the library into a folder, and gives its path."""
        folder = os.path.join(self.folder, *folders)
        os.makedirs(folder, exist_ok=True)
        return shutil.copy(self.real, os.path.join(folder, FILE))

    def test_the_environment_comes_first(self) -> None:
        path = self.copy_package("site")
        self.copy_library("site", "arctos")
        chosen = self.copy_library("chosen")
        self.assertEqual(self.loaded(path, ARCTOS_LIBRARY=chosen), chosen)
        self.assertEqual(self.loaded(path, ARCTOS_LIBRARY=os.path.join("chosen", FILE)), chosen)

    def test_the_packages_folder_comes_next(self) -> None:
        path = self.copy_package("bindings", "python")
        self.copy_library("target", "release")
        own = self.copy_library("bindings", "python", "arctos")
        self.assertEqual(self.loaded(path), own)
        self.assertEqual(self.loaded(path, ARCTOS_LIBRARY=""), own)

    def test_then_the_build_folder_of_a_checkout(self) -> None:
        path = self.copy_package("bindings", "python")
        built = self.copy_library("target", "release")
        system = os.path.dirname(self.copy_library("system"))
        self.assertEqual(self.loaded(path, LD_LIBRARY_PATH=system), built)

    def test_an_installed_package_knows_no_build_folder(self) -> None:
        path = self.copy_package("lib", "python")
        self.copy_library("target", "release")
        self.assertNotIn("target", self.refused(path))

    def test_last_the_systems_loader(self) -> None:
        path = self.copy_package("site")
        system = os.path.dirname(self.copy_library("system"))
        self.assertEqual(self.loaded(path, LD_LIBRARY_PATH=system), FILE)

    def test_every_place_and_its_reason_are_told(self) -> None:
        path = self.copy_package("bindings", "python")
        own = os.path.join(path, "arctos", FILE)
        with open(own, "w") as file:
            file.write("no library")
        built = os.path.join(self.folder, "target", "release", FILE)
        lines = self.refused(path).splitlines()
        self.assertIn(own, lines[1])
        self.assertNotIn("no such file", lines[1])
        self.assertIn(f"{built}: no such file", lines[2])
        self.assertIn("the system's loader", lines[3])
        self.assertIn("the system's list of libraries", lines[4])
        self.assertIn("ARCTOS_LIBRARY", lines[5])

    def test_a_chosen_library_has_no_substitute(self) -> None:
        path = self.copy_package("site")
        self.copy_library("site", "arctos")
        missing = os.path.join(self.folder, "missing.so")
        error = self.refused(path, ARCTOS_LIBRARY=missing)
        self.assertIn("ARCTOS_LIBRARY", error)
        self.assertIn(f"{missing}: no such file", error)
        with open(missing, "w") as file:
            file.write("no library")
        self.assertIn(missing, self.refused(path, ARCTOS_LIBRARY=missing))

    def test_another_abi_is_refused_and_both_are_named(self) -> None:
        other = support.build_fake(self.folder, abi=7)
        error = self.refused(str(support.PACKAGE.parent), ARCTOS_LIBRARY=other)
        self.assertIn("ABI version 7", error)
        self.assertIn("version 1", error)

    def test_a_library_without_our_functions_is_refused(self) -> None:
        source = os.path.join(self.folder, "empty.c")
        with open(source, "w") as file:
            file.write("int nothing;\n")
        empty = os.path.join(self.folder, "empty.so")
        subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", source, "-o", empty], check=True)
        error = self.refused(str(support.PACKAGE.parent), ARCTOS_LIBRARY=empty)
        self.assertIn("arctos_abi_version", error)

    def test_a_failure_to_load_is_not_kept(self) -> None:
        path = self.copy_package("site")
        code = (
            "import arctos, os\n"
            "try:\n"
            "    arctos.version()\n"
            "except arctos.LoadError:\n"
            f"    os.environ['ARCTOS_LIBRARY'] = {self.real!r}\n"
            "    print(arctos.abi_version())\n"
        )
        done = self.run_python(code, path)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "1\n", ""))

    def test_threads_load_it_once(self) -> None:
        count = 8
        started = threading.Semaphore(0)
        go = threading.Event()
        loads: list[object] = []

        def load() -> object:
            go.wait()
            loads.append(object())
            return loads[-1]

        def use() -> None:
            started.release()
            results.append(_library.library())

        results: list[object] = []
        with mock.patch.object(_library, "_loaded", None), mock.patch.object(_library, "_load", load):
            threads = [threading.Thread(target=use) for _ in range(count)]
            for thread in threads:
                thread.start()
            for _ in threads:
                started.acquire()
            go.set()  # the first is in the middle of loading while the others come
            for thread in threads:
                thread.join()
        self.assertEqual(len(loads), 1)
        self.assertEqual(results, loads * count)


class Ending(unittest.TestCase):
    """Python ends quietly with clients that are open, and in the middle of a call."""

    def start(self, code: str, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-X", "dev", "-c", code, *arguments],
            env={**os.environ, "PYTHONPATH": str(support.PACKAGE.parent), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def ends_quietly(self, process: subprocess.Popen[bytes]) -> None:
        stdout, stderr = process.communicate(b"\n", timeout=60)
        self.assertEqual((process.returncode, stdout, stderr), (0, b"", b""))

    def test_with_open_clients(self) -> None:
        code = (
            "import arctos, sys\n"
            "client = arctos.Client(base_url='http://127.0.0.1:1', token='t')\n"
            "class Holder: pass\n"
            "holder = Holder()\n"
            "holder.itself, holder.client = holder, arctos.Client(base_url='http://127.0.0.1:1')\n"
            "sys.kept = holder.client\n"
        )
        self.ends_quietly(self.start(code))

    def test_in_the_call_of_a_daemon_thread(self) -> None:
        code = (
            "import arctos, sys, threading\n"
            "client = arctos.Client(base_url=sys.argv[1], token='t', timeout_ms=3600000)\n"
            f"threading.Thread(target=client.task_add, args=({support.TASK!r},), daemon=True).start()\n"
            "sys.stdin.readline()\n"
        )
        with support.Server(silent=True) as server:
            process = self.start(code, server.url)
            server.wait()
            self.ends_quietly(process)

    def test_while_daemon_threads_make_events(self) -> None:
        code = (
            "import arctos, sys, threading\n"
            "client = arctos.Client(base_url='http://127.0.0.1:1')\n"
            "started = threading.Semaphore(0)\n"
            "arctos.set_log(lambda level, event: started.release(), 4)\n"
            "def work():\n"
            "    while True:\n"
            "        try:\n"
            "            client.task_add({})\n"
            "        except arctos.ArctosError:  # the client is closed at the end\n"
            "            pass\n"
            "for _ in range(4):\n"
            "    threading.Thread(target=work, daemon=True).start()\n"
            "for _ in range(100):\n"
            "    started.acquire()\n"
        )
        for _ in range(5):
            self.ends_quietly(self.start(code))


if __name__ == "__main__":
    unittest.main()
