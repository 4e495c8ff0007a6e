"""Makes arctos video appointments through the arctos C library.

    with arctos.Client(base_url="https://arctos.bank.example", token=token) as client:
        answer = client.task_add(business_id=15, out_task_num="BR0943-187", ...)

Every failure of ``task_add`` is an ArctosError whose ``outcome`` says whether the appointment was made.
The library is loaded when it is first used.
"""

from ._client import (
    AddResult,
    Client,
    JournalKeys,
    JournalPage,
    JournalRow,
    LoginKeys,
    TlsKeys,
    abi_version,
    task_check,
    version,
)
from ._errors import (
    ArctosError,
    BadArgument,
    BadConfig,
    BadResponse,
    BadTask,
    Broken,
    Busy,
    Cancelled,
    Conflict,
    Connect,
    Failed,
    Forbidden,
    Internal,
    Journal,
    NotFound,
    NoValue,
    Outcome,
    Partial,
    Rejected,
    ServerError,
    Timeout,
    Tls,
    Unresolved,
)
from ._library import LoadError
from ._log import set_log
from ._stats import Stats

__all__ = [
    "AddResult",
    "ArctosError",
    "BadArgument",
    "BadConfig",
    "BadResponse",
    "BadTask",
    "Broken",
    "Busy",
    "Cancelled",
    "Client",
    "Conflict",
    "Connect",
    "Failed",
    "Forbidden",
    "Internal",
    "Journal",
    "JournalKeys",
    "JournalPage",
    "JournalRow",
    "LoadError",
    "LoginKeys",
    "NoValue",
    "NotFound",
    "Outcome",
    "Partial",
    "Rejected",
    "ServerError",
    "Stats",
    "Timeout",
    "Tls",
    "TlsKeys",
    "Unresolved",
    "abi_version",
    "set_log",
    "task_check",
    "version",
]

# Names in tracebacks and pickles are those that callers import.
for _name in __all__:
    globals()[_name].__module__ = __name__
