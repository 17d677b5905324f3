"""Bytes and text of small files from outside, read whole and bounded, or refused by name."""

from pathlib import Path

from wsss.errors import ForeseenError

OTHER_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".gif", ".bmp", ".webp", ".npy", ".json")
"""In which pictures, masks and labels come from other tools."""


def refuse_pipe(path: Path, refusal: type[ForeseenError]) -> None:
    """Raise `refusal` for a pipe, socket or device, where reading might never end."""
    if not path.is_file() and path.exists() and not path.is_dir():
        raise refusal(f"{path}: a pipe, socket or device; put a file there")


def read_bytes(path: Path, limit: int, refusal: type[ForeseenError]) -> bytes:
    """Return a file's content. Raises `refusal` if it cannot be read or is over `limit` bytes."""
    refuse_pipe(path, refusal)
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        reason = f"{error.strerror} ({what_is_there(path)})"
        raise refusal(f"{path}: {reason}; put a readable file there") from None
    if len(content) > limit:
        raise refusal(f"{path}: over {limit:,} bytes; replace it")
    return content


def read_text(path: Path, limit: int, refusal: type[ForeseenError]) -> str:
    """Return a UTF-8 file's text without its byte order mark. Raises `refusal` as `read_bytes`."""
    content = read_bytes(path, limit, refusal)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or content[1:4:2] == b"\0\0":
        raise refusal(f"{path}: UTF-16 text, not UTF-8 text; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refusal(
            f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8, not as Latin-1"
        ) from None


def what_is_there(path: Path) -> str:
    """Say in a few words what stands in a file's place, or beside it under another spelling."""
    if path.is_dir():
        return "a folder"
    if path.exists():
        return "not readable"
    if path.is_symlink():
        return "a broken link"
    if not path.parent.exists():
        return f"no folder {path.parent.name}"
    stems = dict.fromkeys((path.stem, path.stem.lower(), path.stem.upper()))
    endings = [e for ending in OTHER_ENDINGS for e in (ending, ending.upper())]
    beside = (f"{stem}{ending}" for stem in stems for ending in endings)
    found = next((name for name in beside if path.with_name(name).exists()), None)
    return f"no file, but {found}" if found else "no file"
