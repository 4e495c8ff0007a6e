"""The client."""

from __future__ import annotations

import ctypes
import dataclasses
import datetime
import itertools
import os
import weakref
from collections.abc import Generator, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, TypedDict, Union

from . import _codes, _json, _library
from ._errors import ArctosError, BadResponse, BadTask, Outcome, failure, failure_of, refusal
from ._stats import Stats

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


@dataclasses.dataclass(frozen=True)
class AddResult:
    """What became of one of many tasks."""

    index: int
    """Where it stands among all of them, from 0."""
    out_task_num: str | None
    """None where it has none that can be read."""
    outcome: Outcome
    answer: dict[str, Any] | None
    """The server's; None where there is an error."""
    error: ArctosError | None
    """What ``task_add`` would have raised; None where the appointment is made."""

    @property
    def ok(self) -> bool:
        """Whether there is an answer. Without one the appointment may be made all the same: see ``outcome``."""
        return self.error is None

    @property
    def code(self) -> int:
        """The library's code; 0 where the appointment is made."""
        return _codes.OK if self.error is None else self.error.code


class _Taken(NamedTuple):
    """A task that was taken from many: as it is sent, or why it cannot be."""

    text: bytes
    number: str | None
    error: ArctosError | None


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

    def task_add_many(
        self, tasks: Iterable[Task], *, timeout_ms: int | None = None, call_id: str | None = None, chunk: int = 1000
    ) -> Generator[AddResult, None, None]:
        """Makes many appointments, as many at once as the client keeps ``connections``, and gives a result for each, in
        the order of the tasks. What ``task_add`` would raise for one is the ``error`` of its result, and the others go
        on. ``timeout_ms`` is that of each task, ``call_id`` that of all.

        ``chunk`` tasks are read, sent, and given when all of them have ended; only then the next ones are read. Once
        the iterator is closed or dropped, nothing more is sent; the chunk that it was giving has been.

        It keeps every ``out_task_num`` that it has read, and sends none twice. Raises BadTask for one that comes
        again; what else it raises is what the library refuses as a whole (BadArgument for an option or a closed
        client, for one), what ``tasks`` raises, TypeError for what is no task, and Cancelled for tasks that are left
        after some were cancelled. The results of earlier chunks have been given then, nothing is sent of the chunk that
        was being read, and the iterator is at its end; of Internal alone the ``outcome`` says what is known of that
        chunk. An exception of another kind that a signal handler raises, such as KeyboardInterrupt, says nothing of its
        chunk: treat all of that as UNKNOWN.

        Threads may run one each on the same client, but not share one.
        """
        if isinstance(tasks, (str, Mapping)):
            raise TypeError("tasks must be an iterable of tasks, not one of them")
        if not isinstance(chunk, int):
            raise TypeError(f"chunk must be an int, not {type(chunk).__name__}")
        if chunk < 1:
            raise ValueError("chunk must be at least 1")
        return self._add_chunks(iter(tasks), _encode_options(timeout_ms, call_id), chunk)

    def _add_chunks(
        self, tasks: Iterator[Task], options: bytes | None, size: int
    ) -> Generator[AddResult, None, None]:
        seen: dict[str, int] = {}
        first = 0
        cancelled = False
        while True:
            chunk: list[_Taken] = []
            for index, task in enumerate(itertools.islice(tasks, size), first):
                if cancelled:
                    message = f"nothing was sent from task {index} on: some before it were cancelled"
                    raise refusal(_codes.CANCELLED, message)
                taken = self._take(task)
                if taken.number is not None and seen.setdefault(taken.number, index) != index:
                    earlier = f"{taken.number!r} of task {index} is that of task {seen[taken.number]} too"
                    raise refusal(_codes.BAD_TASK, f"the out_task_num {earlier}: nothing was sent from task {first} on")
                chunk.append(taken)
            if not chunk:
                return
            results = self._add_chunk(chunk, options, first)
            first += len(results)
            cancelled = any(result.code == _codes.CANCELLED for result in results)
            yield from results

    def _take(self, task: Task) -> _Taken:
        try:
            text = _encode_task(task, {})
        except BadTask as error:
            # The frames of a traceback would keep the task.
            return _Taken(b"", _number(task), error.with_traceback(None))
        # The number is that of the text which is sent. What Python cannot read must not stand among others.
        fields = _decode_object(text.decode("utf-8"))
        if fields is not None:
            return _Taken(text, _number(fields), None)
        deep = "the task is too deeply nested to be one of many"
        return _Taken(text, None, self._refused(text) or refusal(_codes.BAD_TASK, deep))

    def _refused(self, task: bytes) -> ArctosError | None:
        """Why a task is none, if it is none."""
        reply = self._library.call(self._library.task_check, task)
        return None if reply.code == _codes.OK else _failure(self._library, reply, Outcome.NOT_CREATED)

    def _add_chunk(self, chunk: list[_Taken], options: bytes | None, first: int) -> list[AddResult]:
        reply = self._send(chunk, options)
        if reply is not None and reply.code == _codes.BAD_TASK:
            # Nothing was sent. Where some are no tasks, which can make the whole unreadable, they alone are refused.
            checked = [taken._replace(error=taken.error or self._refused(taken.text)) for taken in chunk]
            if checked != chunk:
                chunk = checked
                reply = self._send(chunk, options)
        if reply is not None and reply.code not in (_codes.OK, _codes.PARTIAL):
            raise _failure(self._library, reply, reply.outcome)
        rows = {} if reply is None else _rows(reply.text)
        place = 0
        results: list[AddResult] = []
        for index, taken in enumerate(chunk, first):
            answer, error = None, taken.error
            if error is None and reply is not None:
                answer, error = self._row(rows.get(place, {}), reply.code)
                place += 1
            outcome = Outcome.CREATED if error is None else error.outcome
            results.append(AddResult(index, taken.number, outcome, answer, error))
        return results

    def _send(self, chunk: list[_Taken], options: bytes | None) -> _library.Reply | None:
        """Sends what can be sent of a chunk; None where nothing can."""
        texts = [taken.text for taken in chunk if taken.error is None]
        if not texts:
            return None
        array = b"[" + b",".join(texts) + b"]"
        return self._library.call(self._library.task_add_many, self._handle, array, options, None, None)

    def _row(self, row: dict[str, Any], whole: int) -> tuple[dict[str, Any] | None, ArctosError | None]:
        """The answer or the error in a row, which is empty where it could not be read."""
        code, answer = row.get("code", whole), row.get("answer")
        if code != _codes.OK:
            outcome = _OUTCOMES.get(row.get("outcome"), Outcome.UNKNOWN)
            return None, failure_of(code, self._library.code_name(code), row.get("error"), outcome)
        return (answer, None) if isinstance(answer, dict) else (None, _answer_lost())

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

    def stats(self) -> Stats:
        """What the client has done since it was made, in numbers: calls by code and outcome, connections, bytes and
        latency. ``arctos.h`` says of each what it counts. It holds up no call."""
        stats: Stats = self._told(self._library.call(self._library.client_stats, self._handle))
        return stats

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
            raise _answer_lost()
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


def _answer_lost() -> ArctosError:
    return BadResponse(
        "the server did it, but its answer is too deeply nested, or there was no memory to hold it",
        _codes.BAD_RESPONSE,
        _codes.NAMES[_codes.BAD_RESPONSE],
        Outcome.CREATED,
    )


_OUTCOMES: dict[Any, Outcome] = {outcome.name.lower(): outcome for outcome in Outcome}


def _rows(text: str | None) -> dict[int, dict[str, Any]]:
    """The rows of many tasks by their index, with all that can be read of them."""
    document = _decode_object(text)
    rows: Any = None if document is None else document.get("results")
    if document is None and text is not None:
        # One answer that Python cannot hold must not take the others along.
        members = (member.partition(":") for member in _json.parts(text))
        listed = next((value for key, _, value in members if key.strip() == '"results"'), "")
        rows = [_readable(row) for row in _json.parts(listed)]
    rows = rows if isinstance(rows, list) else []
    return {row["index"]: row for row in rows if isinstance(row, dict) and "index" in row}


def _readable(row: str) -> dict[str, Any]:
    """The members of an object that Python can hold."""
    whole = _decode_object(row)
    if whole is not None:
        return whole
    members = (_decode_object(f"{{{member}}}") for member in _json.parts(row))
    return {key: value for member in members if member is not None for key, value in member.items()}


def _number(task: Any) -> str | None:
    number = task.get("out_task_num") if isinstance(task, Mapping) else None
    return number if isinstance(number, str) else None


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
