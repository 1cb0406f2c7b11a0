"""Text files as people have them: of several encodings, with a byte-order mark or without."""

from pathlib import Path

UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def decode_text(content: bytes) -> str:
    """UTF-8, UTF-16 with its mark as PowerShell writes it, or else Windows-1252."""
    if content[:2] in UTF_16:
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def read_text(path: Path) -> str:
    """A file's text, with line ends as Python has them. Raises OSError."""
    return "\n".join(decode_text(path.read_bytes()).splitlines())
