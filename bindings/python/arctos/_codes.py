"""The codes of the library that this package knows by name, and the one ABI that it speaks."""

ABI_VERSION = 1

OK = 0
BAD_ARGUMENT = -1
BAD_CONFIG = -2
BAD_TASK = -3
BAD_RESPONSE = -26

NAMES: dict[int, str] = {
    OK: "ARCTOS_OK",
    BAD_ARGUMENT: "ARCTOS_BAD_ARGUMENT",
    BAD_CONFIG: "ARCTOS_BAD_CONFIG",
    BAD_TASK: "ARCTOS_BAD_TASK",
    -4: "ARCTOS_NO_VALUE",
    -10: "ARCTOS_CONNECT",
    -11: "ARCTOS_TLS",
    -12: "ARCTOS_TIMEOUT",
    -13: "ARCTOS_BROKEN",
    -14: "ARCTOS_CANCELLED",
    -20: "ARCTOS_FAILED",
    -21: "ARCTOS_FORBIDDEN",
    -22: "ARCTOS_NOT_FOUND",
    -23: "ARCTOS_REJECTED",
    -24: "ARCTOS_BUSY",
    -25: "ARCTOS_SERVER_ERROR",
    BAD_RESPONSE: "ARCTOS_BAD_RESPONSE",
    -99: "ARCTOS_INTERNAL",
}
