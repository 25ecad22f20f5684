"""Genotypes as JSON in one line."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["read_value"]


def read_value(name: str, text: str, key: str) -> Any:
    """What stands behind a key in the JSON of a genotype.

    Args:
        name: The name of the space.
        text: The JSON, with the keys `space` and `key`.
        key: The key.

    Returns:
        The value; ``None`` if there is no such key, as in what `Space.to_json` writes.

    Raises:
        ValueError: If it is no JSON, or of another space.

    Example:
        >>> read_value("mine", '{"space": "mine", "genes": [1, 2]}', "genes")
        [1, 2]
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        wanted = f'{{"space": "{name}", "{key}": ...}}'
        raise ValueError(f"not a genotype of {name!r}: {text[:60]!r}; expected {wanted}") from None
    if not isinstance(data, dict) or key not in data:
        return None
    if data.get("space") != name:
        raise ValueError(
            f"a genotype of space {str(data.get('space'))[:60]!r} was given to space {name!r}; use its own"
        )
    return data[key]
