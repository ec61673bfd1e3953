"""Reads and writes `tf.train.Example` messages without TensorFlow, and lists their keys.

The wire format (protobuf) is a list of `tag, value`; a tag is `field number << 3 | type`, and type
2 is a length followed by that many bytes. An Example is Features (field 1), which is a map (field
1) of name to Feature, which is one of BytesList (1), FloatList (2) and Int64List (3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

Value = list[bytes] | list[int] | None
_SIZES = {1: 8, 5: 4}  # bytes of the fixed-width wire types


def encode_example(features: Mapping[str, bytes | int]) -> bytes:
    """Returns a serialized Example with one value per feature."""
    entries = []
    for name, value in features.items():
        if isinstance(value, bytes):
            feature = field(1, field(1, value))
        else:
            feature = field(3, field(1, _to_varint(value % 2**64)))
        entries.append(field(1, field(1, name.encode()) + field(2, feature)))
    return field(1, b"".join(entries))


def decode_example(payload: bytes) -> dict[str, Value]:
    """Returns the features of a serialized Example; None for those with floats or without values.

    Raises:
        ValueError: the bytes are not a serialized Example.
    """
    found: dict[str, Value] = {}
    for features in _only(payload, 1):
        for entry in _only(features, 1):
            name = b"".join(_only(entry, 1)[-1:]).decode("utf-8")
            found[name] = None
            for feature in _only(entry, 2):
                for number, _, part in _fields(feature):
                    if number == 1:
                        found[name] = _only(part, 1)
                    elif number == 3:
                        found[name] = _integers(part)
    return found


def example_keys(payload: bytes) -> list[str]:
    """Returns the sorted feature names of a serialized Example.

    Raises:
        ValueError: the bytes are not a serialized Example.
    """
    return sorted(
        b"".join(_only(entry, 1)[-1:]).decode("utf-8")
        for features in _only(payload, 1)
        for entry in _only(features, 1)
    )


def field(number: int, content: bytes) -> bytes:
    """Returns a length-delimited field: tag, length, content."""
    return bytes([number << 3 | 2]) + _to_varint(len(content)) + content


def _to_varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def from_varint(data: bytes, position: int) -> tuple[int, int]:
    """Returns the number at a position, and where it ends. Raises ValueError if it is cut short."""
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError("bad varint")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
        shift += 7


def _fields(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yields number, wire type and bytes of each field; of a varint, the bytes that encode it."""
    position = 0
    while position < len(data):
        tag, position = from_varint(data, position)
        kind, start = tag & 7, position
        if kind == 0:
            _, position = from_varint(data, position)
        elif kind == 2:
            length, start = from_varint(data, position)
            position = start + length
        elif kind in _SIZES:
            position += _SIZES[kind]
        else:
            raise ValueError("bad wire type")
        if position > len(data):
            raise ValueError("field past the end")
        yield tag >> 3, kind, data[start:position]


def _only(data: bytes, wanted: int) -> list[bytes]:
    """Returns the length-delimited fields with one number."""
    return [part for number, kind, part in _fields(data) if kind == 2 and number == wanted]


def _integers(data: bytes) -> list[int]:
    """Returns an Int64List's values, whether packed into one field or not."""
    values = []
    for number, kind, part in _fields(data):
        position = 0
        while number == 1 and kind in (0, 2) and position < len(part):
            value, position = from_varint(part, position)
            values.append(value - 2**64 if value >> 63 else value)
    return values
