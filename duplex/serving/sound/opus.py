"""Opus, 24 kHz mono, as it streams: Ogg's pages or single packets to samples and back, by sphn."""

import re
import struct
from functools import cache

import numpy as np
import sphn

from duplex.audio import SAMPLE_RATE
from duplex.errors import ProtocolError

# Bytes of one message at most. 80 ms are a few hundred; packets of one byte could claim minutes.
MAX_BYTES = 1 << 14


# The first page of a stream: its flags, and the header that is alone in it.
BEGINNING = re.compile(rb"OggS\x00\x02.{20}\x01.OpusHead", re.DOTALL)
# Bytes of that page up to the header's name.
BEGINNING_BYTES = 36


class Decoder:
    """Pages to samples. (Moshi's own server uses the same library.)

    What comes before the first page of a stream is skipped: pages of an old stream mean nothing
    without it.
    """

    def __init__(self):
        self._reader: sphn.OpusStreamReader | None = None
        # While there is no stream: the end of what was skipped, and its length so far.
        self._skipped = b""
        self._skipped_bytes = 0

    def decode(self, pages: bytes) -> np.ndarray:
        """The samples float32 [N] that any piece of an Ogg stream completes.

        Raises ProtocolError where the stream is broken, and once where there is none; a new one may
        follow.
        """
        if len(pages) > MAX_BYTES:
            raise ProtocolError(f"an Opus message has at most {MAX_BYTES} bytes, not {len(pages)}")
        found = [np.zeros(0, np.float32)]
        beginning = BEGINNING.search(self._skipped + pages)
        if beginning:
            pages = self._skipped + pages
            if self._reader:
                found.append(self._read(pages[: beginning.start()]))
            self._reader = sphn.OpusStreamReader(SAMPLE_RATE)
            self._skipped = b""
            self._skipped_bytes = 0
            pages = pages[beginning.start() :]
        if self._reader:
            found.append(self._read(pages))
        else:
            self._skip(pages)
        return np.concatenate(found)

    def _read(self, pages: bytes) -> np.ndarray:
        if not pages:
            return np.zeros(0, np.float32)
        try:
            return np.asarray(self._reader.append_bytes(pages), np.float32)
        except BaseException as error:
            # A panic of the library's Rust code is no Exception.
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            self._reader = None
            raise ProtocolError(f"this is no Ogg-Opus stream ({error})"[:120]) from None

    def _skip(self, pages: bytes) -> None:
        """Pass over what belongs to no stream; that is told once."""
        was_told = self._skipped_bytes >= BEGINNING_BYTES
        self._skipped = (self._skipped + pages)[-BEGINNING_BYTES:]
        self._skipped_bytes += len(pages)
        if not was_told and self._skipped_bytes >= BEGINNING_BYTES:
            text = "an Ogg-Opus stream begins with its header pages; all before them is skipped"
            raise ProtocolError(text)


class Encoder:
    """Samples to pages."""

    def __init__(self):
        self._writer = sphn.OpusStreamWriter(SAMPLE_RATE)

    def encode(self, samples: np.ndarray) -> bytes:
        """The pages of float [N], N whole ticks; the stream's two header pages come first."""
        return self._writer.append_pcm(np.clip(samples, -1, 1).astype(np.float32))


class Wrapper:
    """Makes an Ogg stream (RFC 3533, RFC 7845) of packets without one, a page for each."""

    def __init__(self):
        self._pages = 0

    def wrap(self, packet: bytes) -> bytes:
        """The page of a packet; the stream's two header pages come first.

        Raises ProtocolError where it cannot be one.
        """
        longest = 255 * 255 - 1
        if not 0 < len(packet) <= longest:
            raise ProtocolError(f"an Opus packet has 1 to {longest} bytes, not {len(packet)}")
        pages = b""
        if not self._pages:
            # Version 1, mono, nothing to skip, 48 kHz as Opus counts, no gain, no mapping.
            head = struct.pack("<8sBBHIhB", b"OpusHead", 1, 1, 0, 48_000, 0, 0)
            vendor = b"duplex"
            tags = struct.pack(f"<8sI{len(vendor)}sI", b"OpusTags", len(vendor), vendor, 0)
            pages = self._page(head) + self._page(tags)
        return pages + self._page(packet)

    def _page(self, packet: bytes) -> bytes:
        lacing = bytes([255] * (len(packet) // 255) + [len(packet) % 255])
        is_first = 2 if self._pages == 0 else 0
        # Nobody reads the position: the samples are decoded as they come.
        begin = struct.pack("<4sBBqII", b"OggS", 0, is_first, 0, 1, self._pages)
        end = bytes([len(lacing)]) + lacing + packet
        self._pages += 1
        checksum = _checksum(begin + bytes(4) + end)
        return begin + struct.pack("<I", checksum) + end


def packets(pages: bytes) -> list[bytes]:
    """The packets in whole pages of an Ogg stream, without its headers."""
    found = []
    packet = b""
    while pages:
        count = pages[26]
        lacing = pages[27 : 27 + count]
        place = 27 + count
        for length in lacing:
            packet += pages[place : place + length]
            place += length
            if length < 255:
                found.append(packet)
                packet = b""
        pages = pages[place:]
    return [one for one in found if one[:8] not in (b"OpusHead", b"OpusTags")]


@cache
def _checksum_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = value << 1 ^ (0x04C11DB7 if value & 1 << 31 else 0)
        table.append(value & 0xFFFFFFFF)
    return table


def _checksum(page: bytes) -> int:
    """Ogg's: CRC-32 without reflection, from 0."""
    table = _checksum_table()
    value = 0
    for byte in page:
        value = (value << 8 & 0xFFFFFFFF) ^ table[value >> 24 ^ byte]
    return value
