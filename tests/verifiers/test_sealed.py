"""A sealed file: what comes out is what went in, or an error; and a file is there whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from anondata.errors import GalleryError, MissingExtraError
from anondata.verifiers.gallery import sealed
from anondata.verifiers.gallery.sealed import Seal, inspect, local_path, locked, read_sealed, write_sealed

SECRET = b"sixteen bytes or more"
CHUNK = 1024
BODY = 17 + 6  # what comes before the header
BOTH = pytest.mark.parametrize("secret", [None, SECRET], ids=["plain", "encrypted"])


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "CHUNK_BYTES", CHUNK)
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def header_of(data: bytes) -> tuple[dict[str, object], bytes, bytes]:
    """The header, the file up to the body, and the body."""
    end = BODY + int.from_bytes(data[19:23], "little")
    return json.loads(data[BODY:end]), data[:end], data[end:]


def child(code: str, *args: str) -> subprocess.Popen[str]:
    start = "import os, sys, time\nfrom pathlib import Path\nfrom anondata.verifiers.gallery import sealed\n"
    return subprocess.Popen(
        [sys.executable, "-c", start + code, *args], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )


def stop(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    process.send_signal(number)
    process.communicate()


@BOTH
@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 5 * CHUNK + 7])
def test_the_payload_comes_back(tmp_path: Path, size: int, secret: bytes | None) -> None:
    payload = os.urandom(size)
    write_sealed(tmp_path / "file", [payload], secret=secret)
    assert read_sealed(tmp_path / "file", secret=secret) == payload
    assert inspect(tmp_path / "file") == Seal(version=1, encrypted=secret is not None)


@BOTH
@given(pieces=st.lists(st.binary(max_size=3000), max_size=5))
def test_the_pieces_of_a_payload_do_not_matter(pieces: list[bytes], secret: bytes | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_sealed(Path(folder, "file"), [memoryview(piece) for piece in pieces], secret=secret)
        assert read_sealed(Path(folder, "file"), secret=secret) == b"".join(pieces)


def test_an_encrypted_file_is_what_the_module_says_it_is(tmp_path: Path) -> None:
    """Decrypted here by the parts alone: HKDF, and AES-GCM with the nonces of STREAM."""
    payload = os.urandom(2 * CHUNK + 100)
    write_sealed(tmp_path / "file", [payload], secret=SECRET)
    told, head, body = header_of((tmp_path / "file").read_bytes())
    assert head.startswith(b"anondata gallery\n\x01\x00")
    assert set(told) == {"cipher", "salt", "prefix", "chunk_bytes"}
    salt, prefix = bytes.fromhex(str(told["salt"])), bytes.fromhex(str(told["prefix"]))
    key = HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=b"anondata gallery 1").derive(SECRET)
    out = b""
    for number in range(3):
        nonce = prefix + number.to_bytes(4, "big") + (b"\1" if number == 2 else b"\0")
        chunk = body[number * (CHUNK + 16) : (number + 1) * (CHUNK + 16)]
        out += AESGCM(key).decrypt(nonce, chunk, head)
    assert out == payload


def test_a_plain_file_ends_with_the_checksum_of_all_before(tmp_path: Path) -> None:
    write_sealed(tmp_path / "file", [b"payload"], secret=None)
    data = (tmp_path / "file").read_bytes()
    assert header_of(data)[0] == {"cipher": "none"}
    assert data[-32:] == hashlib.sha256(data[:-32]).digest()


def test_nothing_of_the_payload_can_be_read_in_an_encrypted_file(tmp_path: Path) -> None:
    write_sealed(tmp_path / "file", [b"Jane Doe " * 500], secret=SECRET)
    assert b"Jane" not in (tmp_path / "file").read_bytes()


def test_salt_and_nonce_are_fresh_at_every_save(tmp_path: Path) -> None:
    heads = set()
    for _ in range(3):
        write_sealed(tmp_path / "file", [b"same"], secret=SECRET)
        told, _, body = header_of((tmp_path / "file").read_bytes())
        heads |= {told["salt"], told["prefix"], body}
    assert len(heads) == 9


def test_another_key_is_an_error_that_says_what_it_may_be(tmp_path: Path) -> None:
    write_sealed(tmp_path / "file", [b"payload"], secret=SECRET)
    with pytest.raises(GalleryError, match="key is another one, or the file was changed or cut short"):
        read_sealed(tmp_path / "file", secret=SECRET + b"!")


def test_an_encrypted_file_without_a_key_says_where_keys_come_from(tmp_path: Path) -> None:
    write_sealed(tmp_path / "file", [b"payload"], secret=SECRET)
    with pytest.raises(GalleryError, match=r"is encrypted: give its key.*ANONDATA_GALLERY_KEY"):
        read_sealed(tmp_path / "file", secret=None)


def test_a_key_for_a_plain_file_is_refused(tmp_path: Path) -> None:
    """Somebody believes that it is encrypted; and who does not know the key could have put a plain one there."""
    write_sealed(tmp_path / "file", [b"payload"], secret=None)
    with pytest.raises(GalleryError, match=r"is not encrypted. Open it without a key .* save it with the key"):
        read_sealed(tmp_path / "file", secret=SECRET)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\x89PNG\r\n\x1a\n", "not a gallery of anondata"),
        (b"anondata galler", "cut short"),
        (b"anondata gallery\n\x01\x00\x02", "cut short"),
        (b"anondata gallery\n\x01\x00\x09\x00\x00\x00{}", "cut short"),
        (b"anondata gallery\n\x02\x00\x02\x00\x00\x00{}", "newer anondata .format 2, this one reads 1"),
        (b"anondata gallery\n\x00\x00\x02\x00\x00\x00{}", "its header"),
        (b"anondata gallery\n\x01\x00\xff\xff\xff\xff{}", "its header"),
        (b"anondata gallery\n\x01\x00\x02\x00\x00\x00{}", "its header"),
        (b"anondata gallery\n\x01\x00\xff\x0f\x00\x00" + b"[" * 4095, "its header"),
    ],
)
def test_what_is_no_sealed_file_is_told_apart(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "file").write_bytes(data)
    for call in (lambda: read_sealed(tmp_path / "file", secret=None), lambda: inspect(tmp_path / "file")):
        with pytest.raises(GalleryError, match=message):
            call()


@pytest.mark.parametrize("told", [{"chunk_bytes": 1}, {"chunk_bytes": 1 << 40}, {"salt": ""}, {"cipher": "none"}])
def test_a_header_out_of_bounds_is_an_error_before_anything_is_made_by_it(
    tmp_path: Path, told: dict[str, object]
) -> None:
    write_sealed(tmp_path / "file", [b"payload"], secret=SECRET)
    header, head, body = header_of((tmp_path / "file").read_bytes())
    text = json.dumps({**header, **told}).encode()
    (tmp_path / "file").write_bytes(head[:19] + len(text).to_bytes(4, "little") + text + body)
    with pytest.raises(GalleryError, match=r"damaged or no gallery .its header"):
        read_sealed(tmp_path / "file", secret=SECRET)


@BOTH
def test_every_cut_and_every_changed_byte_is_an_error(tmp_path: Path, secret: bytes | None) -> None:
    path = tmp_path / "file"
    write_sealed(path, [b"payload"], secret=secret)
    data = path.read_bytes()
    for at in range(len(data)):
        for changed in (data[:at], data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]):
            path.write_bytes(changed)
            with pytest.raises(GalleryError):
                read_sealed(path, secret=secret)


def test_chunks_that_were_moved_dropped_doubled_or_added_are_errors(tmp_path: Path) -> None:
    path, size = tmp_path / "file", CHUNK + 16
    write_sealed(path, [os.urandom(4 * CHUNK)], secret=SECRET)
    _, head, body = header_of(path.read_bytes())
    write_sealed(path, [os.urandom(4 * CHUNK)], secret=SECRET)
    foreign = header_of(path.read_bytes())[2]
    a, b, c, d = (body[i * size : (i + 1) * size] for i in range(4))
    bodies = [
        (a, b, c),
        (b, c, d),
        (a, c, b, d),
        (a, b, b, c, d),
        (a, b, c, d, d),
        (d,),
        (),
        (a, foreign[:size], c, d),
    ]
    for chunks in bodies:
        path.write_bytes(head + b"".join(chunks))
        with pytest.raises(GalleryError, match="cannot be decrypted"):
            read_sealed(path, secret=SECRET)


def test_only_the_owner_may_read_the_file_whatever_was_there_before(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o644)
    write_sealed(tmp_path / "file", [b"payload"], secret=None)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


# Writing


@contextmanager
def nobody() -> Iterator[None]:
    """As a user without rights; root may write anywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)
        os.chmod(name, 0o755)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def assert_untouched(path: Path) -> None:
    """The old file is there, and nothing beside it but a lock."""
    assert read_sealed(path, secret=None) == b"old"
    assert [p.name for p in path.parent.iterdir() if not p.name.endswith(".lock")] == [path.name]


def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_sealed(tmp_path / "file", [b"old"], secret=None)
    with file_size_limit(1 << 20), pytest.raises(GalleryError, match="cannot be written: File too large"):
        write_sealed(tmp_path / "file", [bytes(1 << 20), b"more"], secret=None)
    assert_untouched(tmp_path / "file")


def test_a_full_disk_is_told_in_the_words_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_sealed(tmp_path / "file", [b"old"], secret=None)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GalleryError, match=r"No space left on device. The old one, if any, is as it was"):
        write_sealed(tmp_path / "file", [b"new"], secret=None)
    assert_untouched(tmp_path / "file")


def test_the_file_is_on_the_disk_before_it_takes_the_name_and_then_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut could leave the new name with nothing behind it."""
    done, replace = [], os.replace
    kinds = {True: "folder", False: "file"}
    monkeypatch.setattr(os, "fsync", lambda handle: done.append(kinds[stat.S_ISDIR(os.fstat(handle).st_mode)]))
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append("replace"), replace(old, new)))
    write_sealed(tmp_path / "file", [b"payload"], secret=None)
    assert done == ["file", "replace", "folder"]


def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"new" * 10000
        raise KeyboardInterrupt

    write_sealed(tmp_path / "file", [b"old"], secret=None)
    with pytest.raises(KeyboardInterrupt):
        write_sealed(tmp_path / "file", pieces(), secret=None)
    assert_untouched(tmp_path / "file")


def test_a_folder_that_may_not_be_written_is_an_error(open_folder: Path) -> None:
    path = open_folder / "file"
    write_sealed(path, [b"old"], secret=None)
    os.chmod(open_folder, 0o555)
    with nobody(), pytest.raises(GalleryError, match="cannot be written: Permission denied"):
        write_sealed(path, [b"new"], secret=None)
    with nobody(), pytest.raises(GalleryError, match="cannot be written: Permission denied"), locked(path):
        pass
    assert_untouched(path)


def test_a_file_that_may_not_be_read_is_an_error(open_folder: Path) -> None:
    path = open_folder / "file"
    write_sealed(path, [b"old"], secret=None)
    path.chmod(0)
    with nobody(), pytest.raises(GalleryError, match="cannot be read: Permission denied"):
        read_sealed(path, secret=None)


def test_a_folder_that_makes_no_files_is_an_error() -> None:
    with pytest.raises(GalleryError, match="cannot be written: "):
        write_sealed(Path("/proc/gallery"), [b"new"], secret=None)


def test_files_that_killed_writers_left_are_cleared_away_and_no_others(tmp_path: Path) -> None:
    left, others = ".file.0123456789abcdef.tmp", [".file.mine.tmp", ".file2.0123456789abcdef.tmp"]
    for name in (left, *others):
        (tmp_path / name).touch()
    write_sealed(tmp_path / "file", [b"payload"], secret=None)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*others, "file"])


def test_a_writer_killed_before_its_end_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_sealed(path, [b"old"], secret=None)
    halted = "os.fsync = lambda handle: (print('written', flush=True), time.sleep(60))\n"
    writer = child(halted + "sealed.write_sealed(Path(sys.argv[1]), [b'new' * 10000], secret=None)", str(path))
    assert writer.stdout is not None
    assert writer.stdout.readline() == "written\n"
    stop(writer)
    assert read_sealed(path, secret=None) == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    write_sealed(path, [b"newer"], secret=None)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_killed_at_any_time_a_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_sealed(path, [b"0"], secret=SECRET)
    code = "print('on', flush=True)\nfor i in range(10**9): sealed.write_sealed(Path(sys.argv[1]), [b'%d' % (i % 10)"
    code += "] * 300000, secret=sys.argv[2].encode())"
    for round_ in range(4):
        writer = child(code, str(path), SECRET.decode())
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.1 + 0.0137 * round_)
        stop(writer)
        assert len(set(read_sealed(path, secret=SECRET))) == 1


def test_a_reader_beside_a_writer_sees_one_whole_file_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_sealed(path, [b"0"], secret=None)
    code = "for i in range(10**9): sealed.write_sealed(Path(sys.argv[1]), [b'%d' % (i % 10)] * 100000, secret=None)"
    writer = child(code, str(path))
    seen, end = set(), time.monotonic() + 20
    while len(seen) < 5 and time.monotonic() < end:
        payload = read_sealed(path, secret=None)
        assert len(set(payload)) == 1
        seen.add(payload[:1])
    stop(writer)
    assert len(seen) == 5


# The lock


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "LOCK_TIMEOUT_S", 0.1)
    code = "with sealed.locked(Path(sys.argv[1])):\n  print('held', flush=True)\n  sys.stdin.read()"
    holder = child(code.replace("sys.stdin.read()", "time.sleep(60)"), str(tmp_path / "file"))
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(GalleryError, match="another process is changing the gallery"), locked(tmp_path / "file"):
        pass
    stop(holder)  # a lock does not outlive its process
    with locked(tmp_path / "file"):
        pass


def test_the_lock_of_this_process_holds_too_and_ends_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealed, "LOCK_TIMEOUT_S", 0.05)

    def twice() -> None:
        with locked(tmp_path / "file"), locked(tmp_path / "file"):
            pass

    with pytest.raises(GalleryError, match="another process"):
        twice()
    with locked(tmp_path / "file"):
        assert (tmp_path / ".file.lock").stat().st_mode & 0o077 == 0


def test_a_lock_in_no_folder_makes_none(tmp_path: Path) -> None:
    with (
        pytest.raises(GalleryError, match="folder of the gallery file is not there"),
        locked(tmp_path / "no" / "file"),
    ):
        pass
    assert not (tmp_path / "no").exists()


# Places


def test_a_link_stays_a_link_and_has_the_lock_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    assert local_path(tmp_path / "link") == tmp_path / "file"
    write_sealed(local_path(tmp_path / "link"), [b"payload"], secret=None)
    assert (tmp_path / "link").is_symlink()
    assert read_sealed(tmp_path / "link", secret=None) == b"payload"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    refused = {
        str(tmp_path): "is a folder",
        "": "is a folder|not there",
        "/dev/full": "not a regular file",
        str(tmp_path / "pipe"): "not a regular file",
        str(tmp_path / "loop"): "Too many levels",
        "a\0b": "ValueError",
        str(tmp_path / ("n" * 300)): "File name too long",
    }
    for place, message in refused.items():
        with pytest.raises(GalleryError, match=message):
            read_sealed(place, secret=None)
        if place:
            with pytest.raises(GalleryError, match=message):
                local_path(place)


def test_a_missing_file_is_told_without_its_name(tmp_path: Path) -> None:
    with pytest.raises(GalleryError) as caught:
        read_sealed(tmp_path / "jane_doe", secret=None)
    assert str(caught.value) == "the gallery file cannot be read: it is not there"


def test_a_file_is_read_from_any_storage_and_written_to_none(tmp_path: Path) -> None:
    import fsspec

    write_sealed(tmp_path / "file", [b"payload" * 1000], secret=SECRET)
    with fsspec.open("memory://sealed/file", "wb") as file:
        file.write((tmp_path / "file").read_bytes())
    assert read_sealed("memory://sealed/file", secret=SECRET) == b"payload" * 1000
    assert read_sealed(f"file://{tmp_path}/file", secret=SECRET) == b"payload" * 1000
    assert inspect("memory://sealed/file").encrypted
    with pytest.raises(GalleryError, match="not at a URL; save it here, and upload"):
        local_path("memory://sealed/file")


@pytest.mark.parametrize(
    ("url", "message"),
    [("memory://nothing/jane", "it is not there"), ("nosuch://jane", "a protocol that fsspec does not know")],
)
def test_a_url_that_cannot_be_read_is_told_without_it(url: str, message: str) -> None:
    with pytest.raises(GalleryError, match=message) as caught:
        read_sealed(url, secret=None)
    assert "jane" not in str(caught.value)


def test_a_url_whose_package_is_missing_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MissingExtraError, match="s3fs"):
        read_sealed("s3://bucket/file", secret=None)


def test_a_storage_that_breaks_in_the_middle_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec
    from fsspec.implementations.memory import MemoryFile

    def broken(self: MemoryFile, count: int = -1) -> bytes:
        raise RuntimeError("https://signed.example/jane?secret")

    with fsspec.open("memory://sealed/broken", "wb") as file:
        file.write(b"anything")
    monkeypatch.setattr(MemoryFile, "read", broken, raising=False)
    with pytest.raises(GalleryError, match=r"cannot be read: RuntimeError$"):
        read_sealed("memory://sealed/broken", secret=None)


def test_a_web_server_without_ranges_will_do(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="fsspec reads http by aiohttp, which is not installed")
    import functools
    import http.server
    import threading

    write_sealed(tmp_path / "file", [b"payload" * 100000], secret=SECRET)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/file"
        assert read_sealed(url, secret=SECRET) == b"payload" * 100000
    finally:
        server.shutdown()
        server.server_close()
