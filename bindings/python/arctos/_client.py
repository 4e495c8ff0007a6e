"""The client."""

from __future__ import annotations

import ctypes
import datetime
import os
import weakref
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, TypedDict, Union

from . import _codes, _json, _library
from ._errors import ArctosError, BadResponse, Outcome, failure, refusal

Task = Union[Mapping[str, Any], str]
Path = Union[str, "os.PathLike[str]"]
Time = Union[str, datetime.datetime]


class TlsKeys(TypedDict, total=False):
    """The keys of ``tls``. All files are in PEM."""

    roots: str
    """``system`` (the default), ``bundled`` (Mozilla's), or ``file`` with ``ca_file``."""
    ca_file: Path
    cert_file: Path
    """The client's own certificate, with ``key_file``."""
    key_file: Path
    min_version: str
    """``1.2`` (the default) or ``1.3``."""
    pins: list[str]
    """Base64 of the SHA-256 of a server's public key; one of them must fit, besides the authority."""


class LoginKeys(TypedDict, total=False):
    """The keys of ``login``: all but the last are required."""

    path: str
    """Below ``base_url``."""
    body: Any
    """What is sent there as JSON."""
    token_pointer: str
    """Where the token stands in the answer, as a JSON pointer."""
    refresh_on: list[int]
    """The statuses after which it logs in again; 401 and 403 by default."""


class JournalKeys(TypedDict, total=False):
    """The keys of ``journal``: ``file`` is required."""

    file: Path
    """On a disk of this machine; all who make appointments here name the same one."""
    server_id: str
    """Whose rows they are: ``base_url`` by default. Two hosts of one server share their rows by one id."""
    keep_days: int
    """How long what is certain is kept; 400 by default."""


class _WholeRow(TypedDict):
    out_task_num: str
    outcome: str
    """``created``, ``not_created``, ``unknown``, or ``sending`` while its call is under way."""
    server: str
    started: str


class JournalRow(_WholeRow, total=False):
    """One appointment in the journal. What it does not have is absent; times are in RFC 3339 and UTC."""

    ended: str
    code: int
    answer: dict[str, Any]
    """The server's."""
    resolved: str
    """When a person told what became of it; ``by`` and ``note`` are that person's."""
    by: str
    note: str


class JournalPage(NamedTuple):
    """Some rows of the journal, oldest first, and where the next page begins; None when there are no more."""

    rows: list[JournalRow]
    next: str | None


class Client:
    """Makes appointments at one server. Any number of threads may use one client at once.

    The keywords are the keys of the library's configuration; the library checks them, and fills in
    the default of each one that is left out or None. Use it in a ``with`` statement, or ``close()`` it.

    Raises BadConfig, whose ``problems`` lists everything that is wrong, and LoadError.
    """

    config: dict[str, Any]
    """The configuration in force when the client was made, defaults filled in, secrets masked."""

    def __init__(
        self,
        *,
        base_url: str,
        allow_http: bool | None = None,
        token: str | None = None,
        token_file: Path | None = None,
        login: LoginKeys | Mapping[str, Any] | None = None,
        proxy: str | None = None,
        timeout_ms: int | None = None,
        connect_timeout_ms: int | None = None,
        max_response_bytes: int | None = None,
        tls: TlsKeys | Mapping[str, Any] | None = None,
        strict: bool | None = None,
        user_agent: str | None = None,
        retries: int | None = None,
        retry_503: bool | None = None,
        server_dedupes: bool | None = None,
        connections: int | None = None,
        idle_timeout_ms: int | None = None,
        keep_bodies: bool | None = None,
        journal: JournalKeys | Mapping[str, Any] | None = None,
    ) -> None:
        config = {
            "base_url": base_url,
            "allow_http": allow_http,
            "token": token,
            "token_file": None if token_file is None else os.fspath(token_file),
            "login": None if login is None else dict(login),
            "proxy": proxy,
            "timeout_ms": timeout_ms,
            "connect_timeout_ms": connect_timeout_ms,
            "max_response_bytes": max_response_bytes,
            "tls": _with_paths(tls),
            "strict": strict,
            "user_agent": user_agent,
            "retries": retries,
            "retry_503": retry_503,
            "server_dedupes": server_dedupes,
            "connections": connections,
            "idle_timeout_ms": idle_timeout_ms,
            "keep_bodies": keep_bodies,
            "journal": _with_paths(journal),
        }
        given = {key: value for key, value in config.items() if value is not None}
        self._open(_encode(given, "the configuration", _codes.BAD_CONFIG))

    @classmethod
    def from_json(cls, config: str) -> Client:
        """A client from its whole configuration as one JSON text, such as the contents of a file. Raises as
        ``Client`` does."""
        client = cls.__new__(cls)
        client._open(_utf8(_text(config, "the configuration"), "the configuration", _codes.BAD_CONFIG))
        return client

    def _open(self, config: bytes) -> None:
        library = _library.library()
        handle = ctypes.c_void_p()
        reply = library.call(library.client_new, config, ctypes.byref(handle))
        if reply.code != _codes.OK:
            raise _failure(library, reply, Outcome.NOT_CREATED)
        self._library = library
        self._handle = handle
        # Unlike __del__, this runs at most once, and at the interpreter's end while ctypes still works.
        self._release = weakref.finalize(self, library.client_free, handle)
        self.config = _json.decode(_given(reply))

    def task_add(self, task: Task | None = None, /, **fields: Any) -> dict[str, Any]:
        """Makes one appointment and gives the server's answer, whose ``info.task_num`` is its number.

        The task is a mapping, a JSON text or keyword arguments, under the names of the vendor's page.
        An answer with ``status`` 2 carries a warning: the appointment is made.

        Raises ArctosError, whose ``outcome`` says whether the appointment was made. An exception of
        another kind that a signal handler raises during the call, such as KeyboardInterrupt, says
        nothing: treat it as UNKNOWN.
        """
        text = _encode_task(task, fields)
        return self._answer(self._library.call(self._library.task_add, self._handle, text))

    def task_add_with(
        self, task: Task, /, *, timeout_ms: int | None = None, call_id: str | None = None
    ) -> dict[str, Any]:
        """``task_add`` with options for this call: ``timeout_ms`` in place of the client's, and a ``call_id`` of
        your own for the log, for ``details`` and for ``cancel_call``. Raises BadArgument for a wrong one."""
        text = _encode_task(task, {})
        options = _encode_options(timeout_ms, call_id)
        return self._answer(self._library.call(self._library.task_add_with, self._handle, text, options))

    def call(
        self, path: str, body: Any, *, timeout_ms: int | None = None, call_id: str | None = None
    ) -> dict[str, Any]:
        """Asks the server for anything else: POSTs a body to a path below ``base_url``, and gives the answer.

        The body is a JSON text where it is a str, and otherwise a value that is written as JSON.

        Raises ArctosError, whose ``outcome`` says whether the server carried it out; see ``task_add``.
        """
        where = _utf8(_text(path, "the path"), "the path", _codes.BAD_ARGUMENT)
        if isinstance(body, str):
            text = _utf8(body, "the body", _codes.BAD_ARGUMENT)
        else:
            text = _encode(dict(body) if isinstance(body, Mapping) else body, "the body", _codes.BAD_ARGUMENT)
        options = _encode_options(timeout_ms, call_id)
        return self._answer(self._library.call(self._library.post, self._handle, where, text, options))

    def diagnose(self) -> dict[str, Any]:
        """Finds out what stands between this machine and the server, for a help desk: makes no appointment, logs in
        nowhere, and sends no token.

        Gives ``{"steps": [...]}``, each with ``step``, ``state`` (``ok``, ``failed`` or ``skipped``), ``ms``,
        ``detail`` and ``advice``; ``arctos.h`` lists what some have besides. Where a step failed, raises the
        exception of the first one, whose ``steps`` are all of them.
        """
        diagnosis: dict[str, Any] = self._told(self._library.call(self._library.client_diagnose, self._handle))
        return diagnosis

    def journal_list(
        self,
        outcome: Outcome | str | None = None,
        *,
        since: Time | None = None,
        until: Time | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> JournalPage:
        """What the journal has of this server: at most ``limit`` rows (100), of one ``outcome``, from ``since`` on and
        before ``until``. A time is a datetime with a time zone, or a text in RFC 3339. ``after`` is the ``next`` of the
        page before.

        Raises BadArgument, also for a client without a journal, Journal, and ValueError for a datetime without a time
        zone.
        """
        given = {
            "outcome": _word(outcome),
            "since": _time(since, "since"),
            "until": _time(until, "until"),
            "limit": limit,
            "after": after,
        }
        given = {key: value for key, value in given.items() if value is not None}
        text = _encode(given, "the filter", _codes.BAD_ARGUMENT) if given else None
        page = self._told(self._library.call(self._library.journal_list, self._handle, text))
        return JournalPage(page["rows"], page.get("next"))

    def journal_rows(
        self, outcome: Outcome | str | None = None, *, since: Time | None = None, until: Time | None = None
    ) -> Iterator[JournalRow]:
        """All rows that ``journal_list`` gives, page by page. Those that it gives may be resolved meanwhile."""
        after: str | None = None
        while True:
            rows, after = self.journal_list(outcome, since=since, until=until, after=after)
            yield from rows
            if after is None:
                return

    def journal_resolve(
        self,
        out_task_num: str,
        outcome: Outcome | str,
        by: str,
        *,
        task_num: str | None = None,
        note: str | None = None,
    ) -> JournalRow:
        """Tells the journal what a person has found out of an appointment that may have been made, and who: CREATED,
        with the server's ``task_num``, or NOT_CREATED. Gives the row. From then on ``task_add`` of the same task
        gives an answer with that number, or sends.

        Raises NoValue where there is no such row, BadArgument for what contradicts it, and Journal.
        """
        number = _utf8(_text(out_task_num, "the out_task_num"), "the out_task_num", _codes.BAD_ARGUMENT)
        said = {"outcome": _word(outcome), "task_num": task_num, "by": by, "note": note}
        given = {key: value for key, value in said.items() if value is not None}
        text = _encode(given, "the resolution", _codes.BAD_ARGUMENT)
        row: JournalRow = self._told(self._library.call(self._library.journal_resolve, self._handle, number, text))
        return row

    def cancel(self) -> None:
        """Ends every call of the client that another thread is in: each raises Cancelled, whose ``outcome`` says
        whether the appointment may have been made. Later calls are not affected."""
        self._cancelled(self._library.client_cancel(self._handle))

    def cancel_call(self, call_id: str) -> None:
        """Ends the calls with this ``call_id``, as ``cancel`` ends all. One that is not in flight is no error."""
        text = _utf8(_text(call_id, "the call_id"), "the call_id", _codes.BAD_ARGUMENT)
        self._cancelled(self._library.call_cancel(self._handle, text))

    def set_token(self, token: str) -> None:
        """Replaces the token for the calls that begin from now on. Raises BadArgument; the old token then stays."""
        text = _utf8(_text(token, "the token"), "the token", _codes.BAD_ARGUMENT)
        reply = self._library.call(self._library.client_set_token, self._handle, text)
        if reply.code != _codes.OK:
            raise _failure(self._library, reply, Outcome.NOT_CREATED)

    def close(self) -> None:
        """Releases the client; calls that other threads are in go on to their end. Closing again does nothing."""
        self._release()

    def _answer(self, reply: _library.Reply) -> dict[str, Any]:
        if reply.code != _codes.OK:
            raise _failure(self._library, reply, reply.outcome)
        answer = _decode_object(reply.text)
        if answer is None:
            raise BadResponse(
                "the server did it, but its answer is too deeply nested, or there was no memory to hold it",
                _codes.BAD_RESPONSE,
                _codes.NAMES[_codes.BAD_RESPONSE],
                Outcome.CREATED,
            )
        return answer

    def _told(self, reply: _library.Reply) -> Any:
        """What a function says that sends nothing."""
        if reply.code != _codes.OK:
            raise _failure(self._library, reply, Outcome.NOT_CREATED)
        return _json.decode(_given(reply))

    def _cancelled(self, code: int) -> None:
        if code == _codes.BAD_ARGUMENT:
            raise refusal(code, "the client was closed")
        if code != _codes.OK:
            raise failure(code, self._library.code_name(code), None, Outcome.NOT_CREATED)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "" if self._release.alive else " closed"
        return f"<arctos.Client {self.config.get('base_url')!r}{state}>"


def task_check(task: Task | None = None, /, **fields: Any) -> dict[str, Any]:
    """Applies the rules of ``task_add`` and sends nothing.

    Gives what would be sent (``path``, ``body``) and ``notes`` on fields that the vendor does not
    document. Raises BadTask, whose ``problems`` lists everything that is wrong.
    """
    text = _encode_task(task, fields)
    library = _library.library()
    reply = library.call(library.task_check, text)
    if reply.code != _codes.OK:
        raise _failure(library, reply, Outcome.NOT_CREATED)
    checked: dict[str, Any] = _json.decode(_given(reply))
    return checked


def version() -> str:
    """The version of the library."""
    return _library.library().version()


def abi_version() -> int:
    """The version of the library's C interface."""
    abi: int = _library.library().abi_version()
    return abi


def _failure(library: _library.Library, reply: _library.Reply, outcome: Outcome) -> ArctosError:
    return failure(reply.code, library.code_name(reply.code), reply.text, outcome)


def _given(reply: _library.Reply) -> str:
    if reply.text is None:
        raise MemoryError("no memory was left for a text of the arctos library")
    return reply.text


def _decode_object(text: str | None) -> dict[str, Any] | None:
    try:
        value = None if text is None else _json.decode(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _encode_task(task: Task | None, fields: dict[str, Any]) -> bytes:
    if task is None:
        task = fields
    elif fields:
        raise TypeError("give the task either as one argument or as keyword arguments, not both")
    if isinstance(task, str):
        return _utf8(task, "the task", _codes.BAD_TASK)
    if isinstance(task, Mapping):
        return _encode(dict(task), "the task", _codes.BAD_TASK)
    raise TypeError(f"the task must be a mapping or a JSON text, not {type(task).__name__}")


def _encode_options(timeout_ms: int | None, call_id: str | None) -> bytes | None:
    options = {"timeout_ms": timeout_ms, "call_id": call_id}
    given = {key: value for key, value in options.items() if value is not None}
    return _encode(given, "the options", _codes.BAD_ARGUMENT) if given else None


def _with_paths(keys: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The keys of one object, which may name files by paths."""
    if keys is None:
        return None
    return {key: os.fspath(value) if isinstance(value, os.PathLike) else value for key, value in keys.items()}


def _word(outcome: Outcome | str | None) -> str | None:
    """An outcome as the library spells it. What is none is the library's to refuse."""
    return outcome.name.lower() if isinstance(outcome, Outcome) else outcome


def _time(value: Time | None, what: str) -> str | None:
    if not isinstance(value, datetime.datetime):
        return None if value is None else _text(value, what)
    if value.utcoffset() is None:
        raise ValueError(f"{what} has no time zone: nobody could tell which moment it is")
    # RFC 3339 knows no seconds in an offset; UTC has none.
    return value.astimezone(datetime.timezone.utc).isoformat()


def _text(value: str, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, not {type(value).__name__}")
    return value


def _encode(value: Any, what: str, code: int) -> bytes:
    try:
        text = _json.encode(value)
    except (ValueError, RecursionError) as error:
        reason = str(error)
    else:
        return _utf8(text, what, code)
    raise refusal(code, f"{what} cannot be written as JSON: {reason}")


def _utf8(text: str, what: str, code: int) -> bytes:
    """The text as C takes it, or a refusal where C would read another text than the caller meant."""
    if "\0" in text:
        raise refusal(code, f"{what} holds a NUL character")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        # Raised below: the UnicodeEncodeError carries the whole text, which may hold a secret.
        pass
    raise refusal(code, f"{what} holds half of a surrogate pair, which is no character")
