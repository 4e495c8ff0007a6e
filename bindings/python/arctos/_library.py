"""Finds and loads the shared library, and calls its C functions."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys
import threading
from typing import Any, NamedTuple

from . import _codes
from ._errors import Outcome

if sys.platform == "win32":
    _FILE = "arctos.dll"
elif sys.platform == "darwin":
    _FILE = "libarctos.dylib"
else:
    _FILE = "libarctos.so"


class LoadError(ImportError):
    """The shared library could not be loaded, or it is none that this package can use."""


class Reply(NamedTuple):
    """What a C function gave: its code, its text (None for NULL), and the outcome that both state."""

    code: int
    text: str | None
    outcome: Outcome


LogFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32, ctypes.c_char_p)
"""``arctos_log_fn``."""


class _Interrupts(threading.local):
    """Ctrl-C that came inside a callback, where it could reach nobody: it is raised when the call has ended."""

    held: KeyboardInterrupt | None = None

    def raise_held(self) -> None:
        held, self.held = self.held, None
        if held is not None:
            raise held


interrupts = _Interrupts()


class Library:
    """The C functions, with the types of ``arctos.h``."""

    def __init__(self, path: str) -> None:
        # CDLL, unlike PyDLL, lets other threads run during a call.
        self.path = path
        self._functions = ctypes.CDLL(path)
        text, client, out = ctypes.c_char_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
        # A library of another ABI may lack the other functions: ask for its version first.
        self.abi_version = self._function("arctos_abi_version", ctypes.c_uint32)
        abi = self.abi_version()
        if abi != _codes.ABI_VERSION:
            raise LoadError(
                f"{path} has ABI version {abi}, this package needs version {_codes.ABI_VERSION}: "
                "use a library and a package of the same release",
                name="arctos",
                path=path,
            )
        # Only static texts may have c_char_p as their result: it forgets the pointer, and a text that is
        # handed over must be freed. For the same reason every out parameter is a c_void_p.
        self._version = self._function("arctos_version", text)
        self._code_name = self._function("arctos_code_name", text, ctypes.c_int32)
        self._free = self._function("arctos_free", None, ctypes.c_void_p)
        self._outcome = self._function("arctos_outcome", ctypes.c_int32, ctypes.c_int32, ctypes.c_void_p)
        self.client_new = self._function("arctos_client_new", ctypes.c_int32, text, out, out)
        self.client_free = self._function("arctos_client_free", None, client)
        self.client_set_token = self._function("arctos_client_set_token", ctypes.c_int32, client, text, out)
        self.task_add = self._function("arctos_task_add", ctypes.c_int32, client, text, out)
        self.task_add_with = self._function("arctos_task_add_with", ctypes.c_int32, client, text, text, out)
        # The function for each row is a null pointer here: the rows are collected.
        row, user = ctypes.c_void_p, ctypes.c_void_p
        self.task_add_many = self._function(
            "arctos_task_add_many", ctypes.c_int32, client, text, text, row, user, out
        )
        self.client_diagnose = self._function("arctos_client_diagnose", ctypes.c_int32, client, out)
        self.client_stats = self._function("arctos_client_stats", ctypes.c_int32, client, out)
        self.client_cancel = self._function("arctos_client_cancel", ctypes.c_int32, client)
        self.call_cancel = self._function("arctos_call_cancel", ctypes.c_int32, client, text)
        self.post = self._function("arctos_call", ctypes.c_int32, client, text, text, text, out)
        self.journal_list = self._function("arctos_journal_list", ctypes.c_int32, client, text, out)
        self.journal_resolve = self._function("arctos_journal_resolve", ctypes.c_int32, client, text, text, out)
        self.set_log = self._function("arctos_set_log", None, LogFunction, ctypes.c_void_p, ctypes.c_int32)
        self.task_check = self._function("arctos_task_check", ctypes.c_int32, text, out)

    def _function(self, name: str, result: Any, *arguments: Any) -> Any:
        try:
            function = getattr(self._functions, name)
        except AttributeError:
            raise LoadError(f"{self.path} has no function {name}", name="arctos", path=self.path) from None
        function.restype = result
        function.argtypes = arguments
        return function

    def version(self) -> str:
        version: bytes = self._version()
        return version.decode("ascii")

    def code_name(self, code: int) -> str:
        name: bytes = self._code_name(code)
        return name.decode("ascii")

    def call(self, function: Any, *arguments: Any) -> Reply:
        """Calls a function whose last parameter is ``char **answer``, and takes the text over."""
        answer = ctypes.c_void_p()
        try:
            code: int = function(*arguments, ctypes.byref(answer))
            outcome = Outcome(self._outcome(code, answer))
            text = None if answer.value is None else ctypes.string_at(answer.value).decode("utf-8")
        finally:
            self._free(answer)
        interrupts.raise_held()
        return Reply(code, text, outcome)


_lock = threading.Lock()
_loaded: Library | None = None


def library() -> Library:
    """The library, loaded at the first call. A failure is not kept: the next call looks again."""
    global _loaded
    if _loaded is None:
        with _lock:
            if _loaded is None:
                _loaded = _load()
    return _loaded


def _load() -> Library:
    chosen = os.environ.get("ARCTOS_LIBRARY")
    if chosen:
        # Made absolute, since the system's loader searches its own folders for a bare name.
        path = os.path.abspath(chosen)
        try:
            return Library(path)
        except OSError as error:
            raise LoadError(
                f"the arctos library could not be loaded from ARCTOS_LIBRARY: {_reason(path, error)}",
                name="arctos",
                path=path,
            ) from None

    tried: list[str] = []
    for where, path in _places():
        try:
            return Library(path)
        except OSError as error:
            tried.append(f"  {where}: {_reason(path, error)}")
    found = ctypes.util.find_library("arctos")
    if found is None:
        tried.append("  the system's list of libraries: it has none of this name")
    else:
        try:
            return Library(found)
        except OSError as error:
            tried.append(f"  the system's list of libraries: {_reason(found, error)}")
    raise LoadError(
        "the arctos library could not be loaded. Looked in:\n"
        + "\n".join(tried)
        + "\nSet ARCTOS_LIBRARY to its file to use one that stands elsewhere.",
        name="arctos",
    )


def _places() -> list[tuple[str, str]]:
    package = os.path.dirname(os.path.abspath(__file__))
    places = [("the package's folder", os.path.join(package, _FILE))]
    checkout = package
    for folder in ("arctos", "python", "bindings"):
        checkout, name = os.path.split(checkout)
        if name != folder:
            break
    else:
        places.append(("the build folder", os.path.join(checkout, "target", "release", _FILE)))
    places.append(("the system's loader", _FILE))
    return places


def _reason(path: str, error: OSError) -> str:
    if os.path.dirname(path) and not os.path.exists(path):
        return f"{path}: no such file"
    text = str(error)
    return text if path in text else f"{path}: {text}"
