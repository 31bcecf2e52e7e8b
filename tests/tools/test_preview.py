"""``anondata preview``: a page of its own, that says what it holds and never lies beside what is published."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image


def test_the_page_shows_pairs_and_scores(anondata, photos, tmp_path):
    (photos / "broken.jpg").write_bytes(b"no photo")
    page = tmp_path / "page.html"
    shown = anondata("preview", photos, "--out", page)
    text = page.read_text()
    assert shown.code == 3
    assert "6 pictures, 1 withheld" in shown.out
    assert "holds originals" in shown.err
    assert text.count("<article>") == 6
    assert text.count("data:image/jpeg;base64,") == 10
    assert "withheld: not_an_image" in text
    assert re.search(r'<td>random_colors|title="[^"]*">random_colors', text)
    assert re.search(r"self_match\(.*?<td class=\"number\">0\.\d{3}</td><td class=\"number\">0\.\d{3}</td>", text)


def test_the_page_says_in_red_that_it_must_not_be_published(anondata, photos, tmp_path):
    anondata("preview", photos, "--out", tmp_path / "page.html", "--limit", 1)
    text = (tmp_path / "page.html").read_text()
    assert '<div class="banner" role="alert">This page holds original photos of people. Do not publish' in text
    assert re.search(r"\.banner \{[^}]*background: #b3261e", text)


def test_the_page_is_private_whole_and_loads_nothing(anondata, photos, tmp_path):
    page = tmp_path / "page.html"
    anondata("preview", photos, "--out", page, "--limit", 2)
    text = page.read_text()
    assert page.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["page.html"]
    assert not re.search(r"https?://|<script|<link|@import", text)
    for name in ("alice", "bob"):
        assert name not in text

    opened: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "img"):
                opened.append(tag)

        def handle_endtag(self, tag):
            assert opened.pop() == tag

    Parser().feed(text)
    assert opened == []


def test_thumbnails_are_small_upright_and_bare(anondata, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    exif[0x010E] = "alice at home"
    Image.new("RGB", (1000, 400), (90, 120, 60)).save(tmp_path / "a.jpg", exif=exif)
    anondata("preview", tmp_path / "a.jpg", "--out", tmp_path / "page.html")
    found = re.findall(r"base64,([^\"]+)", (tmp_path / "page.html").read_text())
    assert len(found) == 2
    for thumbnail in map(base64.b64decode, found):
        assert Image.open(io.BytesIO(thumbnail)).size == (256, 640)
        assert b"alice" not in thumbnail


def test_the_page_is_never_written_below_an_output_folder(anondata, photos, tmp_path):
    out = tmp_path / "out"
    anondata("anonymize", photos, "--out", out)
    (tmp_path / "link").symlink_to(out / "trip")
    for page in (out / "page.html", out / "trip/page.html", out / ".anondata/page.html", tmp_path / "link/page.html"):
        shown = anondata("preview", photos, "--out", page)
        assert shown.code == 2
        assert "the page would hold originals, and lie in a folder of anonymized files" in shown.err
        assert not page.exists()


@pytest.mark.parametrize(
    ("out", "message"), [("nowhere/page.html", "the folder of --out does not exist"), ("a.jpg", "not a preview")]
)
def test_pages_that_cannot_be_written_are_usage_errors(anondata, tmp_path, photo, out, message):
    (tmp_path / "a.jpg").write_bytes(photo())
    shown = anondata("preview", tmp_path / "a.jpg", "--out", tmp_path / out)
    assert shown.code == 2
    assert message in shown.err
    assert (tmp_path / "a.jpg").read_bytes() == photo()


def test_an_older_preview_is_replaced(anondata, photos, tmp_path):
    for _ in range(2):
        assert anondata("preview", photos, "--out", tmp_path / "page.html", "--limit", 1).code == 0
