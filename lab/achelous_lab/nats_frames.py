"""What a NATS server sends, frame by frame and byte for byte: pure."""

from typing import Final, NamedTuple

_END: Final = b"\r\n"
_MESSAGES: Final = (b"MSG ", b"HMSG ")


class Frame(NamedTuple):
    """A protocol line, or a message with its payload. ``subject``: of a message, else none."""

    data: bytes
    subject: bytes = b""


class FrameSplitter:
    """Splits a stream of chunks into the frames that they complete; joined, these are the stream.

    https://docs.nats.io/reference/reference-protocols/nats-protocol: `MSG subject sid [reply] size`
    and `HMSG subject sid [reply] header-size size`, the payload after it.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._wanted = 0

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that ``chunk`` completes."""
        self._rest += chunk
        frames: list[Frame] = []
        while len(self._rest) >= self._wanted and (frame := self._next()) is not None:
            del self._rest[: len(frame.data)]
            self._wanted = 0
            frames.append(frame)
        return frames

    def _next(self) -> Frame | None:
        end = self._rest.find(_END)
        if end < 0:
            return None
        line = bytes(self._rest[: end + len(_END)])
        if not line.startswith(_MESSAGES):
            return Frame(line)
        words = line.split()
        self._wanted = len(line) + int(words[-1]) + len(_END)
        if len(self._rest) < self._wanted:
            return None
        return Frame(bytes(self._rest[: self._wanted]), words[1])
