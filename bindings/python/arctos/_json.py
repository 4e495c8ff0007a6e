"""JSON that loses no digit on its way in or out."""

from __future__ import annotations

import decimal
import json
import re
from collections.abc import Iterator
from typing import Any


def encode(value: Any) -> str:
    """The JSON text of ``value``. ValueError or RecursionError: it has none."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def decode(text: str) -> Any:
    """The value of a JSON text. A number that int or float would not hold exactly is a Decimal."""
    return _DECODER.decode(text)


def parts(text: str) -> Iterator[str]:
    """The text of each element of a JSON array, or of each member of an object, however deeply they are nested."""
    depth = start = 0
    for mark in _MARKS.finditer(text):
        kind = mark[0][0]
        if kind in "[{":
            depth += 1
            if depth == 1:
                start = mark.end()
        elif kind in "]}":
            depth -= 1
            if depth == 0 and text[start : mark.start()].strip():
                yield text[start : mark.start()]
        elif kind == "," and depth == 1:
            yield text[start : mark.start()]
            start = mark.end()


_MARKS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},]')


def _integer(text: str) -> int | decimal.Decimal:
    try:
        return int(text)
    except ValueError:
        # Python refuses to convert more digits than sys.set_int_max_str_digits allows.
        return decimal.Decimal(text)


def _real(text: str) -> float | decimal.Decimal:
    short = float(text)
    try:
        exact = decimal.Decimal(text)
    except decimal.InvalidOperation:
        # An exponent of twenty digits, which is beyond Decimal too.
        return short
    return short if decimal.Decimal(repr(short)) == exact else exact


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_real)
