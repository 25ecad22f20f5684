"""Reads TFRecord files and protocol buffers without their frameworks."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["RECORD_FRAME", "crc32c", "payloads", "wire_fields"]

RECORD_FRAME = 16
"""Bytes of a record besides its payload."""
_LARGEST = 1 << 30  # bytes of a payload; a greater length is taken for a sign of another file


def payloads(path: str | os.PathLike[str], check_payloads: bool = False) -> Iterator[bytes]:
    """The payloads of a TFRecord file, one after the other.

    A record is the length of its payload (8 bytes), a checksum of these 8 bytes, the payload, and its checksum.

    Args:
        path: The file.
        check_payloads: Whether to compare the checksums of payloads too (some 10 MB a second) and not only those of
            lengths, which suffice to tell a file that is cut off or no TFRecord file.

    Raises:
        ValueError: If the file cannot be opened, ends within a record, or a checksum differs; the message says where.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     list(payloads(file.name))
        []
    """
    try:
        file = open(path, "rb")  # noqa: SIM115  # closed below; only opening it is tried
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    with file:
        while True:
            start = file.tell()
            head = file.read(12)
            if not head:
                return
            where = f"{path}, record at byte {start}"
            if len(head) < 12:
                raise ValueError(f"{where}: the file ends within the record's head; it is cut off, get it anew")
            length, checksum = struct.unpack("<QI", head)
            if checksum != _masked(crc32c(head[:8])) or length > _LARGEST:
                raise ValueError(
                    f"{where}: the checksum of its length is wrong; this is no TFRecord file, or a broken one"
                )
            yield _payload(file, length, where, check_payloads)


def _payload(file: BinaryIO, length: int, where: str, check: bool) -> bytes:
    payload, tail = file.read(length), file.read(4)
    if len(payload) < length or len(tail) < 4:
        raise ValueError(f"{where}: the file ends before its {length} bytes do; it is cut off, get it anew")
    if check and struct.unpack("<I", tail)[0] != _masked(crc32c(payload)):
        raise ValueError(f"{where}: the checksum of its payload is wrong; the file is broken, get it anew")
    return payload


def _table() -> tuple[int, ...]:
    """What each value of the lowest byte adds to the checksum, for Castagnoli's polynomial."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """The Castagnoli cyclic redundancy check of some bytes.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _masked(crc: int) -> int:
    """A checksum as the format stores it, rotated and shifted."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def wire_fields(message: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """The fields of a protocol buffer in their order: number and value.

    Args:
        message: A serialised message.

    Yields:
        The number of a field, and an integer, a double or a float, or the bytes of a text or of another message.

    Raises:
        ValueError: If the bytes are no message; the message says where.

    Example:
        >>> list(wire_fields(bytes([0x08, 0x96, 0x01, 0x12, 0x02, 0x68, 0x69])))
        [(1, 150), (2, b'hi')]
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind not in (1, 2, 5):
            raise ValueError(f"byte {at}: a field of kind {kind} is none of a protocol buffer that is read here")
        size, at = _varint(message, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
        part, at = message[at : at + size], at + size
        if len(part) < size:
            raise ValueError(f"byte {at - size}: the message ends before a field of {size} bytes does")
        yield key >> 3, part if kind == 2 else struct.unpack("<d" if kind == 1 else "<f", part)[0]


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """An integer in groups of seven bits, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError(f"byte {at}: the message ends within a number")
        byte, at = message[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"byte {at}: a number of more than ten bytes is none of a protocol buffer")
