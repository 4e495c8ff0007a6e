"""The log of the library, handed to a Python function."""

from __future__ import annotations

import atexit
from typing import Any, Callable

from . import _json, _library

LogCallback = Callable[[int, "dict[str, Any]"], object]

# What set_log was last given. Deliveries read it.
_current: tuple[LogCallback | None, int] = (None, 0)


def set_log(callback: LogCallback | None, most: int = 3) -> None:
    """Sets the function that receives the events of the library, one for the whole process; None for none.

    It is called as ``callback(level, event)``: the level is 1 error, 2 warning, 3 information or 4 detail,
    and the event a dict with ``event``, ``time`` and what else ``arctos.h`` lists. ``most`` is the highest level that
    is delivered. It is called on the thread that the event happens on, from several threads at once. An exception
    that it raises goes to ``sys.unraisablehook``, and the call goes on; Ctrl-C inside it is raised when the call has
    ended. It must not fork.

    When ``set_log`` returns, no other thread is inside the function that was set before.
    """
    global _current
    if callback is not None and not callable(callback):
        raise TypeError(f"the callback must be callable or None, not {type(callback).__name__}")
    if not isinstance(most, int):
        raise TypeError(f"most must be an int, not {type(most).__name__}")
    library = _library.library()
    _current = (callback, min(max(most, 0), 4))
    # Of several threads that set one, the last that wrote _current must be the last to tell the library.
    while True:
        told = _current
        function = _NONE if told[0] is None else _DELIVER
        library.set_log(function, None, told[1])
        if told is _current:
            return


def _deliver(user: int | None, level: int, line: bytes) -> None:
    callback = _current[0]
    if callback is None:
        return
    try:
        callback(level, _json.decode(line.decode("utf-8")))
    except KeyboardInterrupt as interrupt:
        _library.interrupts.held = interrupt
    # Any other exception goes no further than to ctypes, which hands it to sys.unraisablehook.


# Never released, so that the library cannot call what is gone.
_DELIVER = _library.LogFunction(_deliver)
_NONE = _library.LogFunction()


# No thread may come into an interpreter that is being taken down.
@atexit.register
def _silence() -> None:
    if _current[0] is not None:
        set_log(None)
