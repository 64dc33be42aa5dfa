"""What somebody gives of one person: pictures with names, tables, a sentence about each file that is left out."""

import io
import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from melanoma_utils.archives import MemoryFile, ZipMember, list_zip_members
from melanoma_utils.images import load_resized
from melanoma_utils.patient_files import MAX_PICTURES, sort_files


def encode_jpeg(shade=120):
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def pack(files, name="visit.zip", compression=zipfile.ZIP_DEFLATED):
    """Returns a zip archive of name -> content, in memory."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for member, content in files.items():
            archive.writestr(member, content)
    return MemoryFile(name, buffer.getvalue())


def test_files_and_archives_give_pictures_and_tables():
    archive = pack({"patient/left/arm.jpg": b"1", "patient/table.csv": b"2", "back.png": b"3"})
    found = sort_files([MemoryFile("leg.dcm", b"4"), archive, MemoryFile("more.CSV", b"5")])
    assert {name: source.read_bytes() for name, source in found.pictures.items()} == {
        "leg": b"4", "arm": b"1", "back": b"3"}
    assert [source.read_bytes() for source in found.tables] == [b"2", b"5"] and not found.problems


def test_what_systems_put_into_archives_is_passed_over_without_a_word():
    archive = pack({"__MACOSX/a.jpg": b"", "x/__MACOSX/._a.jpg": b"", ".DS_Store": b"", "x/._b.jpg": b"",
                    "Thumbs.db": b"", "a.jpg": b"1", "empty/": b""})
    found = sort_files([archive])
    assert list(found.pictures) == ["a"] and not found.problems


def test_alike_names_are_told_apart_by_folders_or_by_a_number():
    found = sort_files([pack({"left/1.jpg": b"a", "right/1.jpg": b"b", "2.jpg": b"c"}), MemoryFile("3.jpg", b"d"),
                        MemoryFile("3.jpg", b"e"), MemoryFile("3.png", b"f")])
    assert list(found.pictures) == ["left/1", "right/1", "2", "3", "3 (2)", "3 (3)"]
    assert found.pictures["3 (3)"].read_bytes() == b"f"
    assert found.problems == ["Two pictures are named 3: 3.jpg is called 3 (2) here.",
                              "Two pictures are named 3: 3.png is called 3 (3) here."]


def test_an_archive_that_would_unpack_to_too_much_is_never_unpacked(monkeypatch):
    monkeypatch.setattr(ZipMember, "read_bytes", lambda member: pytest.fail("it was unpacked"))
    bomb = pack({"zeros.jpg": bytes(60 * 2**20), "a.jpg": b"1"}, "bomb.zip")
    assert bomb.n_bytes < 2**20
    found = sort_files([bomb, MemoryFile("b.jpg", b"2")])
    assert list(found.pictures) == ["a", "b"]
    assert found.problems == ["bomb.zip/zeros.jpg would unpack to 60 MB, more than the 50 that are read: it is left "
                              "out."]


def test_many_members_that_are_large_together_are_refused(monkeypatch):
    monkeypatch.setattr("melanoma_utils.patient_files.MAX_ZIP_MEGABYTES", 2)
    found = sort_files([pack({f"{i}.jpg": bytes(2**20) for i in range(3)}, "bomb.zip"), MemoryFile("b.jpg", b"2")])
    assert list(found.pictures) == ["b"]
    assert found.problems == ["bomb.zip would unpack to 3 MB, more than 2: it is left out."]
    monkeypatch.setattr("melanoma_utils.patient_files.MAX_ZIP_FILES", 2)
    assert "holds 3 files, more than 2" in sort_files([pack(dict.fromkeys("abc", b""))]).problems[0]


def test_a_size_that_is_declared_too_small_gives_an_error_and_no_flood():
    archive = pack({"a.jpg": bytes(60 * 2**20)})
    content = archive.content.replace((60 * 2**20).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    member = list_zip_members(MemoryFile("liar.zip", content))[0]
    assert member.n_bytes == 1000
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"liar\.zip/a\.jpg can't be unpacked"):
        member.read_bytes()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("compression", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_what_python_would_unpack_without_end_is_not_unpacked(compression):
    source = sort_files([pack({"a.jpg": encode_jpeg()}, compression=compression)]).pictures["a"]
    with pytest.raises(ValueError, match=r"visit\.zip/a\.jpg can't be unpacked: .*make an ordinary zip archive"):
        source.read_bytes()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_and_different_sizes():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.jpg", b"1")
        archive.writestr("a.jpg", b"22")
    found = sort_files([MemoryFile("visit.zip", buffer.getvalue())])
    assert list(found.pictures) == ["a", "a (2)"] and found.pictures["a (2)"].read_bytes() == b"22"
    with pytest.raises(ValueError, match="two files of this name"):
        found.pictures["a"].read_bytes()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", encode_jpeg()])
def test_no_archive_is_told_by_name(content):
    found = sort_files([MemoryFile("visit.zip", content), MemoryFile("b.jpg", b"2")])
    assert list(found.pictures) == ["b"] and len(found.problems) == 1
    assert found.problems[0].startswith("visit.zip is not a whole zip archive")


def test_an_archive_without_any_file_says_so():
    assert sort_files([pack({"__MACOSX/a": b""})]).problems == ["visit.zip holds no file that can be looked at."]


def test_an_encrypted_member_is_told_when_it_is_read():
    archive = pack({"a.jpg": encode_jpeg()})
    content = bytearray(archive.content)
    for start, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag that says "encrypted", in both headers
        content[content.index(start) + offset] |= 1
    member = sort_files([replace(archive, content=bytes(content))]).pictures["a"]
    with pytest.raises(ValueError, match=r"visit\.zip/a\.jpg can't be unpacked: .*encrypted"):
        member.read_bytes()


def test_too_many_pictures_are_cut_off_with_a_word():
    found = sort_files([MemoryFile(f"{i:03d}.jpg", b"") for i in range(MAX_PICTURES + 3)])
    assert len(found.pictures) == MAX_PICTURES
    assert found.problems == [f"These are {MAX_PICTURES + 3} pictures: the first {MAX_PICTURES} are looked at, up to "
                              f"{MAX_PICTURES - 1:03d}.jpg."]


def test_a_picture_in_an_archive_in_memory_is_read_like_any_other():
    source = sort_files([pack({"a.jpg": encode_jpeg(200)})]).pictures["a"]
    assert load_resized(source, 4).tolist() == load_resized(MemoryFile("a.jpg", encode_jpeg(200)), 4).tolist()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_spoilt_archives_never_raise_anything_but_a_sentence():
    content = pack({"a/1.jpg": encode_jpeg(), "b.csv": b"image_name\n1"}).content
    rng = np.random.default_rng(0)
    for _ in range(300):
        spoilt = bytearray(content)
        for at in rng.integers(0, len(spoilt), rng.integers(1, 6)):
            spoilt[at] = rng.integers(256)
        found = sort_files([MemoryFile("visit.zip", bytes(spoilt))])
        for source in (*found.pictures.values(), *found.tables):
            try:
                source.read_bytes()
            except (ValueError, FileNotFoundError) as error:
                assert "visit.zip" in str(error)
