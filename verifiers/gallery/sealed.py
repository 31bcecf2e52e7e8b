"""A sealed file: a payload in one file, whole or not at all, checked, and encrypted when there is a key.

::

    "anondata gallery\\n"                   the first line
    version, length of the header          uint16 and uint32, little-endian
    header                                 JSON: the cipher; salt, nonce prefix and chunk size where it has them
    body of a plain file                   the payload, and the SHA-256 of everything before
    body of an encrypted file              chunks of the payload, each with its tag

Encryption is AES-256-GCM by the STREAM construction: the nonce of a chunk is a random prefix, the chunk's number and
whether it is the last, and the header goes in as associated data. So a chunk that was changed, moved, dropped or
added is an error, and so is a changed header. The AES key is made by HKDF-SHA256 from the secret and a salt of the
file's own. A checksum holds against accidents only; against people it takes a key, and then they can still put back
an older file, or see how large it is.

Source: Hoang, Reyhanitabar, Rogaway, Vizár (2015), Online Authenticated-Encryption and its Nonce-Reuse
Misuse-Resistance.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
import stat
import struct
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from filelock import FileLock, Timeout

from anondata.errors import GalleryError, MissingExtraError

Place = str | os.PathLike[str]
Piece = bytes | memoryview

KEY_VARIABLE = "ANONDATA_GALLERY_KEY"
CHUNK_BYTES = 16 << 20  # OpenSSL takes at most 2^31 - 1 bytes at once, and galleries grow larger
LOCK_TIMEOUT_S = 1.0

_MAGIC = b"anondata gallery\n"
_VERSION = 1
_START = struct.Struct("<HI")
_NONCE = struct.Struct(">7sI?")
_SALT_BYTES, _PREFIX_BYTES, _TAG_BYTES, _DIGEST_BYTES = 32, 7, 16, 32
_MOST_HEADER_BYTES = 4096
_CHUNK_RANGE = range(1 << 10, (64 << 20) + 1)


@dataclass(frozen=True)
class Seal:
    """What can be told of a file without its key."""

    version: int
    encrypted: bool


@dataclass(frozen=True)
class _Header:
    """salt, prefix: of an encrypted file, else empty. raw: the file up to the body."""

    salt: bytes
    prefix: bytes
    chunk_bytes: int
    raw: bytes = field(repr=False)

    @property
    def encrypted(self) -> bool:
        return bool(self.salt)


def write_sealed(path: Path, payload: Iterable[Piece], *, secret: bytes | None) -> None:
    """Puts a payload, in pieces, into a file: afterwards that is the old one or the new one, whole.

    Only for who holds the lock (:func:`locked`): leftovers of writers that were killed are cleared away.

    Raises:
        GalleryError: the file cannot be written; the old one is as it was.
    """
    try:
        _clear_leftovers(path)
        _replace(path, _sealed(payload, secret))
    except OSError as error:
        raise _unwritable(error) from error


def read_sealed(place: Place, *, secret: bytes | None) -> bytes:
    """The payload of a file at a local path or an fsspec URL.

    Raises:
        GalleryError: nothing there, no sealed file, damaged, another key, or a key where none belongs.
        MissingExtraError: a URL whose protocol needs a package that is not installed.
    """
    with _opened(place) as file:
        header = _read_header(file)
        if not header.encrypted and secret is not None:
            raise GalleryError(
                f"a key was given, but the gallery file is not encrypted. Open it without a key ({KEY_VARIABLE} not "
                "set), and save it with the key to encrypt it"
            )
        if not header.encrypted:
            return _plain_payload(file, header)
        if secret is None:
            raise GalleryError(
                "the gallery file is encrypted: give its key, or the path of its key file (of commands --gallery-key "
                f"or --key-file), or set {KEY_VARIABLE}"
            )
        return _decrypted_payload(file, header, secret)


def inspect(place: Place) -> Seal:
    """What can be told of a file without its key. Raises as :func:`read_sealed`."""
    with _opened(place) as file:
        return Seal(_VERSION, _read_header(file).encrypted)


def local_path(place: Place) -> Path:
    """The real local path of a file to be written, links followed, so that one file has one lock.

    Raises:
        GalleryError: a URL, no path at all, or no regular file.
    """
    if _is_url(place):
        raise GalleryError(
            "a gallery is changed on this machine only, not at a URL; save it here, and upload the file"
        )
    try:
        path = Path(os.path.realpath(_plain(place)))
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return path
    except (OSError, ValueError) as error:
        raise _unwritable(error) from error
    _check_regular(mode)
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other writers away from a file. Readers need no lock.

    Raises:
        GalleryError: another writer is at it, or there is no folder for it.
    """
    if not path.parent.is_dir():
        raise GalleryError("the folder of the gallery file is not there; make it first")
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_TIMEOUT_S, mode=0o600)
    try:
        lock.acquire()
    except Timeout as error:
        raise GalleryError("another process is changing the gallery; try again when it is done") from error
    except OSError as error:
        raise _unwritable(error) from error
    try:
        yield
    finally:
        lock.release()


def _sealed(payload: Iterable[Piece], secret: bytes | None) -> Iterator[Piece]:
    """What to write, one after the other."""
    header = _new_header(encrypted=secret is not None)
    yield header.raw
    if secret is None:
        digest = hashlib.sha256(header.raw)
        for piece in payload:
            digest.update(piece)
            yield piece
        yield digest.digest()
    else:
        cipher = _cipher(secret, header)
        for number, (chunk, last) in enumerate(_chunks(payload, header.chunk_bytes)):
            yield cipher.encrypt(_NONCE.pack(header.prefix, number, last), chunk, header.raw)


def _chunks(pieces: Iterable[Piece], size: int) -> Iterator[tuple[bytes, bool]]:
    """Pieces of any length as chunks of one size, and which is the last: it may be shorter, but is always there."""
    chunk = bytearray()
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            if len(chunk) == size:
                yield bytes(chunk), False
                chunk.clear()
            room = size - len(chunk)
            chunk += rest[:room]
            rest = rest[room:]
    yield bytes(chunk), True


def _new_header(*, encrypted: bool) -> _Header:
    salt = secrets.token_bytes(_SALT_BYTES) if encrypted else b""
    prefix = secrets.token_bytes(_PREFIX_BYTES) if encrypted else b""
    told: dict[str, str | int] = {"cipher": "none"}
    if encrypted:
        told = {"cipher": "aes-256-gcm", "salt": salt.hex(), "prefix": prefix.hex(), "chunk_bytes": CHUNK_BYTES}
    text = json.dumps(told).encode()
    return _Header(salt, prefix, CHUNK_BYTES, _MAGIC + _START.pack(_VERSION, len(text)) + text)


def _cipher(secret: bytes, header: _Header) -> AESGCM:
    made = HKDF(algorithm=hashes.SHA256(), length=32, salt=header.salt, info=b"anondata gallery 1")
    return AESGCM(made.derive(secret))


def _read_header(file: BinaryIO) -> _Header:
    start = _read(file, len(_MAGIC) + _START.size)
    if not start:
        raise GalleryError("the gallery file is empty")
    if not start.startswith(_MAGIC[: len(start)]):
        raise GalleryError("the file is not a gallery of anondata")
    if len(start) < len(_MAGIC) + _START.size:
        raise damaged("cut short")
    version, length = _START.unpack(start[len(_MAGIC) :])
    if version > _VERSION:
        raise GalleryError(
            f"the gallery file was made by a newer anondata (format {version}, this one reads {_VERSION}); update it"
        )
    if version < 1 or length > _MOST_HEADER_BYTES:
        raise damaged("its header")
    text = _read(file, length)
    if len(text) < length:
        raise damaged("cut short")
    return _parsed_header(text, start + text)


def _parsed_header(text: bytes, raw: bytes) -> _Header:
    try:
        told = json.loads(text)
        if told == {"cipher": "none"}:
            return _Header(b"", b"", CHUNK_BYTES, raw)
        salt, prefix, size = bytes.fromhex(told["salt"]), bytes.fromhex(told["prefix"]), told["chunk_bytes"]
        whole = (told["cipher"], len(salt), len(prefix)) == ("aes-256-gcm", _SALT_BYTES, _PREFIX_BYTES)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise damaged("its header") from error
    if not whole or type(size) is not int or size not in _CHUNK_RANGE:
        raise damaged("its header")
    return _Header(salt, prefix, size, raw)


def _plain_payload(file: BinaryIO, header: _Header) -> bytes:
    body = io.BytesIO()  # gives its bytes away without a copy
    while piece := _read(file, CHUNK_BYTES):
        body.write(piece)
    size = body.tell() - _DIGEST_BYTES
    if size < 0:
        raise damaged("cut short")
    with body.getbuffer() as view:
        digest = hashlib.sha256(header.raw)
        digest.update(view[:size])
        right = digest.digest() == view[size:]
    if not right:
        raise damaged("its checksum is wrong: changed or cut short")
    body.truncate(size)
    return body.getvalue()


def _decrypted_payload(file: BinaryIO, header: _Header, secret: bytes) -> bytes:
    cipher, body, number = _cipher(secret, header), io.BytesIO(), 0
    piece = _read(file, header.chunk_bytes + _TAG_BYTES)
    while True:
        following = _read(file, header.chunk_bytes + _TAG_BYTES)
        nonce = _NONCE.pack(header.prefix, number, not following)
        try:
            body.write(cipher.decrypt(nonce, piece, header.raw))
        except (InvalidTag, ValueError) as error:
            raise GalleryError(
                "the gallery file cannot be decrypted: its key is another one, or the file was changed or cut short. "
                "Check the key, then look for a backup"
            ) from error
        if not following:
            return body.getvalue()
        piece, number = following, number + 1


def _replace(path: Path, pieces: Iterable[Piece]) -> None:
    temp = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, path)
    except BaseException:
        with suppress(OSError):
            temp.unlink()
        raise
    with suppress(OSError):  # the file is in its place; some network filesystems cannot sync a folder
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _clear_leftovers(path: Path) -> None:
    of_killed = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{16}\.tmp")
    for name in os.listdir(path.parent):
        if of_killed.fullmatch(name):
            path.with_name(name).unlink(missing_ok=True)


def _is_url(place: Place) -> bool:
    return isinstance(place, str) and "://" in place and not place.startswith("file://")


def _plain(place: Place) -> Place:
    return place.removeprefix("file://") if isinstance(place, str) else place


@contextmanager
def _opened(place: Place) -> Iterator[BinaryIO]:
    with _open_url(str(place)) if _is_url(place) else _open_local(_plain(place)) as file:
        yield file


def _open_local(place: Place) -> BinaryIO:
    try:
        _check_regular(os.stat(place).st_mode)  # opening a pipe would wait for ever
        return open(place, "rb")
    except (OSError, ValueError) as error:
        if isinstance(error, GalleryError):
            raise
        raise _unreadable(error) from error


def _open_url(url: str) -> AbstractContextManager[BinaryIO]:
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(url)
        opened: AbstractContextManager[BinaryIO] = fs.open(path, "rb")
    except ImportError as error:
        raise MissingExtraError(f"the gallery's URL: {error}. `pip install` what it names, and try again") from error
    except Exception as error:  # storages raise what they like; its text would name the URL
        if url.split("://")[0].split("::")[0] not in fsspec.available_protocols():
            raise GalleryError("the gallery's URL has a protocol that fsspec does not know") from error
        raise _unreadable(error) from error
    return opened


def _read(file: BinaryIO, count: int) -> bytes:
    """As many bytes as asked for, fewer only at the end of the file."""
    pieces, missing = [], count
    try:
        while missing and (piece := file.read(missing)):
            pieces.append(piece)
            missing -= len(piece)
    except Exception as error:
        raise _unreadable(error) from error
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _check_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise GalleryError("the path of the gallery is a folder; it must be a file")
    if not stat.S_ISREG(mode):
        raise GalleryError("the path of the gallery is not a regular file")


def damaged(what: str) -> GalleryError:
    """What to tell of a file that does not hold what it should."""
    return GalleryError(f"the gallery file is damaged or no gallery ({what}); look for a backup")


def _unreadable(error: Exception) -> GalleryError:
    return GalleryError(f"the gallery file cannot be read: {reason(error)}")


def _unwritable(error: Exception) -> GalleryError:
    return GalleryError(f"the gallery file cannot be written: {reason(error)}. The old one, if any, is as it was")


def reason(error: Exception) -> str:
    """The system's own words, which name no file; of other errors only the kind."""
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
