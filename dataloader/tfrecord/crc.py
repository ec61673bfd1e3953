"""Computes CRC-32C (Castagnoli, RFC 3720) as TFRecord files store it: "masked".

Masked means rotated and offset.

`google_crc32c` computes it at memory speed. If that is missing, NumPy does, in about 2 ms for 70
kB: fast enough for writing and verifying, too slow to check every record in training.
"""

from __future__ import annotations

import functools

import numpy as np

try:
    import google_crc32c
except ImportError:
    google_crc32c = None

FAST = google_crc32c is not None
_WIDTH = 32  # bytes per lane


def _byte_table() -> np.ndarray:
    table: np.ndarray = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return table.astype(np.uint32)


_TABLE = _byte_table()


def _mask(crc: int) -> int:
    return ((crc >> 15) | (crc << 17)) + 0xA282EAD8


def _advance(register: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Advances the shift register, uint32 `(n,)`, over each row's bytes, uint8 `(n, k)`."""
    for column in rows.T:
        register = _TABLE[(register ^ column) & 0xFF] ^ (register >> np.uint32(8))
    return register


def masked_rows(rows: np.ndarray) -> np.ndarray:
    """Returns the masked checksums uint32 `(n,)` of `n` messages of `k` bytes, uint8 `(n, k)`."""
    crc = ~_advance(np.full(len(rows), 0xFFFFFFFF, np.uint32), rows)
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)


def masked(data: bytes) -> int:
    """Returns the masked checksum of one message."""
    crc = google_crc32c.value(data) if FAST else _by_numpy(data)
    return _mask(crc) & 0xFFFFFFFF


def _by_numpy(data: bytes) -> int:
    """Cuts the message into lanes that advance in parallel, then joins them in pairs.

    The register is linear over GF(2): its value for "left, right" is the value for "left, zeros"
    xor the value for "right" started from zero, and leading zeros do not change a zero register.
    """
    size = len(data)
    if size < 4:
        row = np.frombuffer(data, np.uint8)[None]
        return int(~_advance(np.array([0xFFFFFFFF], np.uint32), row)[0])
    count = 1 << (-(-size // _WIDTH) - 1).bit_length()
    message = np.zeros(count * _WIDTH, np.uint8)
    message[-size:] = np.frombuffer(data, np.uint8)
    start = len(message) - size
    # a register of all ones equals inverting the first four bytes
    message[start : start + 4] ^= 0xFF
    registers = _advance(np.zeros(count, np.uint32), message.reshape(count, _WIDTH))
    width = _WIDTH
    while len(registers) > 1:
        tables = _zeros(width)
        left, right = registers[::2], registers[1::2]
        for byte in range(4):
            right = right ^ tables[byte][(left >> np.uint32(8 * byte)) & 0xFF]
        registers, width = right, 2 * width
    return int(~registers[0])


@functools.lru_cache(maxsize=64)
def _zeros(count: int) -> np.ndarray:
    """Returns the effect of `count` zero bytes on each byte of the register: uint32 `(4, 256)`."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)  # images of the 32 unit registers
    power = _advance(bits, np.zeros((32, 1), np.uint8))
    result = bits
    while count:
        if count & 1:
            result = _apply(power, result)
        power, count = _apply(power, power), count >> 1
    values = np.arange(256, dtype=np.uint32)
    return np.stack([_apply(result, values << np.uint32(8 * byte)) for byte in range(4)])


def _apply(matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Multiplies `values` by the GF(2) matrix with columns `matrix`."""
    chosen = (values[:, None] >> np.arange(32, dtype=np.uint32)) & np.uint32(1)
    return np.bitwise_xor.reduce(np.where(chosen, matrix, np.uint32(0)), axis=1)
