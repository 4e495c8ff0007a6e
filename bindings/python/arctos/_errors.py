"""The exceptions: one class for each code, named after it."""

from __future__ import annotations

import contextlib
import enum
from typing import Any

from . import _codes, _json


class Outcome(enum.IntEnum):
    """Whether the appointment was made, or what ``call`` asked for was done. Not zero means that it may be."""

    NOT_CREATED = 0
    CREATED = 1
    UNKNOWN = 2


class ArctosError(Exception):
    """A call that the library refused or that failed. ``str()`` gives the message.

    Codes that this package does not know are raised as this class itself: decide by ``outcome``.
    """

    code: int
    """The library's code, always negative."""
    name: str
    """The code's name, such as ``ARCTOS_TIMEOUT``."""
    outcome: Outcome
    """Whether the failed call made an appointment; of ``call``, whether the server carried it out. Failures of
    what sends nothing are NOT_CREATED."""
    details: dict[str, Any]
    """The library's error document; empty when there is none."""

    def __init__(
        self,
        message: str,
        code: int,
        name: str,
        outcome: Outcome,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.name = name
        self.outcome = outcome
        self.details = {} if details is None else details

    @property
    def attempts(self) -> int:
        """How many times the request was tried; 0 when the failure came before the first try. ``outcome``
        speaks of all of them."""
        attempts = self.details.get("attempts", 0)
        return attempts if isinstance(attempts, int) else 0

    @property
    def problems(self) -> list[dict[str, Any]]:
        """Everything that is wrong with a task or a configuration: ``field``, ``problem`` and,
        where it may be shown, ``value``."""
        problems = self.details.get("problems", [])
        return problems if isinstance(problems, list) else []

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The steps of ``Client.diagnose`` up to what failed, and those behind it; empty for other failures."""
        steps = self.details.get("steps", [])
        return steps if isinstance(steps, list) else []

    @property
    def recorded_answer(self) -> dict[str, Any] | None:
        """The answer that the journal holds of the appointment that was made under this number, where a call fails
        all the same: see Conflict."""
        answer = self.details.get("recorded_answer")
        return answer if isinstance(answer, dict) else None

    def __reduce__(self) -> Any:
        # Exceptions are pickled by their args alone, and a process pool hangs on one that it cannot rebuild.
        return type(self), (str(self), self.code, self.name, self.outcome, self.details)


class BadArgument(ArctosError):
    """An argument that the library cannot take, or a client that was closed."""


class BadConfig(ArctosError):
    """The configuration, or a file that it names, is refused; ``problems`` lists everything."""


class BadTask(ArctosError):
    """The task is not JSON or breaks the contract; ``problems`` lists everything."""


class NoValue(ArctosError):
    """There is nothing at a JSON pointer."""


class Connect(ArctosError):
    """The name of the server or of the proxy was not found, or no connection to it came about."""


class Tls(ArctosError):
    """The server's certificate or its TLS is not acceptable."""


class Timeout(ArctosError):
    """A deadline passed; ``outcome`` says whether the request had gone out."""


class Broken(ArctosError):
    """The connection was reset or closed before the answer was whole."""


class Cancelled(ArctosError):
    """``cancel`` or ``cancel_call`` ended the call; ``outcome`` says whether the request had gone out."""


class Failed(ArctosError):
    """The server refused the appointment; ``details["server_message"]`` says why."""


class Forbidden(ArctosError):
    """The server refused the token or the log-in, or the client has no token."""


class NotFound(ArctosError):
    """HTTP 404: ``base_url`` does not lead to the server's API."""


class Rejected(ArctosError):
    """Another HTTP 4xx."""


class Busy(ArctosError):
    """HTTP 429 (not created) or 503 (unknown; with ``retry_503`` not created)."""


class ServerError(ArctosError):
    """Another HTTP 5xx."""


class BadResponse(ArctosError):
    """No readable answer of this API, or one that says "made" and gives no number."""


class Partial(ArctosError):
    """Of many tasks some were not made. ``Client.task_add_many`` has a result for each instead, and this one as the
    error of a task whose own could not be read: it may have been made."""


class Journal(ArctosError):
    """The journal cannot be read or written: nothing was sent now."""


class Unresolved(ArctosError):
    """The journal holds an earlier try of this ``out_task_num`` that may have made it: nothing was sent now. Find out
    what became of it, and tell ``Client.journal_resolve``."""


class Conflict(ArctosError):
    """The journal holds this ``out_task_num`` with another task: nothing was sent now. ``outcome`` is that of the
    other one, and ``recorded_answer`` the server's answer to it."""


class Internal(ArctosError):
    """A defect of the library."""


def _class_name(name: str) -> str:
    """``ARCTOS_BAD_TASK`` is ``BadTask``."""
    return "".join(word.capitalize() for word in name.split("_")[1:])


CLASSES: dict[int, type[ArctosError]] = {
    code: globals()[_class_name(name)] for code, name in _codes.NAMES.items() if code != _codes.OK
}


def failure(code: int, name: str, document: str | None, outcome: Outcome) -> ArctosError:
    """The exception for a failure that the library reported."""
    details: Any = None
    if document is not None:
        # Code and outcome must reach the caller whatever became of the document.
        with contextlib.suppress(ValueError, RecursionError):
            details = _json.decode(document)
    return failure_of(code, name, details, outcome)


def failure_of(code: int, name: str, details: Any, outcome: Outcome) -> ArctosError:
    """The exception for a failure whose error document was read."""
    if not isinstance(details, dict):
        details = {}
    message = details.get("message")
    if not isinstance(message, str):
        message = name
    return CLASSES.get(code, ArctosError)(message, code, name, outcome, details)


def refusal(code: int, message: str) -> ArctosError:
    """The exception for what this package refuses before the library sees it."""
    return CLASSES[code](message, code, _codes.NAMES[code], Outcome.NOT_CREATED)
