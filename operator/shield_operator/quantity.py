"""Kubernetes quantities: `500m`, `2`, `4Gi`, `1e3`."""

from __future__ import annotations

import re
from decimal import Decimal

_QUANTITY = re.compile(r"\+?(?P<number>[0-9]+(\.[0-9]*)?|\.[0-9]+)(?P<unit>[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?")
_SCALE = {"": Decimal(1)}
_SCALE |= {
    unit: Decimal(1000) ** power
    for unit, power in (("n", -3), ("u", -2), ("m", -1), ("k", 1), ("M", 2), ("G", 3), ("T", 4), ("P", 5), ("E", 6))
}
_SCALE |= {f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)}


def parse_quantity(text: str | int) -> Decimal:
    """The number that a quantity means.

    Raises:
        ValueError: it is none, or negative.
    """
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise ValueError(f"not a quantity: {text!r}")
    unit = match["unit"] or ""
    if unit[:1] in {"e", "E"} and len(unit) > 1:
        return Decimal(match["number"]).scaleb(int(unit[1:]))
    return Decimal(match["number"]) * _SCALE[unit]
