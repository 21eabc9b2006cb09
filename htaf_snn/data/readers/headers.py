"""Lines of text before a file's binary part."""

from __future__ import annotations

from typing import BinaryIO

_LONGEST_LINE = 1 << 16
_CONTROLS = set(range(32)) - set(b"\t\r")


def text_header(file: BinaryIO, mark: bytes, last: tuple[bytes, ...]) -> list[str]:
    """Reads the lines that begin with ``mark``, up to one of ``last``; the file stands after them.

    An event may begin with the byte of ``mark``: a line of text has no control characters, and
    ends as the first one does.
    """
    lines: list[bytes] = []
    while True:
        at, line = file.tell(), file.readline(_LONGEST_LINE)
        end = b"\r\n" if lines and lines[0].endswith(b"\r\n") else b"\n"
        is_text = line.endswith(end) and not set(line[: -len(end)]) & _CONTROLS
        if not (line.startswith(mark) and is_text):
            file.seek(at)
            break
        lines.append(line)
        if line.strip().lower() in last:
            break
    return [line.decode("latin-1").strip() for line in lines]
