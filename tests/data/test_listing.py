"""The rules about files, which are the same for folders and for zips."""

import errno
import inspect
import os
import pathlib
import stat
import sys
import warnings
import zipfile

import pytest

from jaxdog.data import image_files, listing, photos
from jaxdog.utils import archives, errors

BOTH = pytest.mark.parametrize("container", ["folder", "zip"])


def make(tmp_path: pathlib.Path, container: str, names) -> pathlib.Path:
    """A folder or zip with one-byte files of these names."""
    if container == "zip":
        with zipfile.ZipFile(tmp_path / "dogs.zip", "w") as archive:
            for name in names:
                archive.writestr(name, b"x")
        return tmp_path / "dogs.zip"
    for name in names:
        path = tmp_path / "dogs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "dogs"


def classes(source: photos.Source) -> dict[str, str]:
    return {photo.name: source.class_names[photo.label] for photo in source.photos}


@BOTH
@pytest.mark.parametrize(
    ("names", "want"),
    [
        (("a.jpg", "b.PNG"), {"a.jpg": "dogs", "b.PNG": "dogs"}),
        (("pug/a.jpg", "akita/b.jpg"), {"akita/b.jpg": "akita", "pug/a.jpg": "pug"}),
        (("pug/a.jpg",), {"pug/a.jpg": "pug"}),
        (("pug/a.jpg", "pug/x/b.jpg"), {"pug/a.jpg": "pug", "pug/x/b.jpg": "pug"}),
        (("all/pug/a.jpg", "all/akita/b.jpg"), {"all/akita/b.jpg": "akita", "all/pug/a.jpg": "pug"}),
        (
            ("in/all/pug/x/a.jpg", "in/all/pug/b.jpg"),
            {"in/all/pug/b.jpg": "pug", "in/all/pug/x/a.jpg": "pug"},
        ),
        (("a-b/1.jpg", "a/2.jpg"), {"a/2.jpg": "a", "a-b/1.jpg": "a-b"}),
        (
            ("pug/2019.05.01.jpg", "pug/2019.05.02.jpg"),
            dict.fromkeys(("pug/2019.05.01.jpg", "pug/2019.05.02.jpg"), "pug"),
        ),
    ],
)
def test_folders_are_classes(tmp_path, container, names, want):
    source = image_files.source(make(tmp_path, container, names))
    found = classes(source)
    assert found == want and list(found) == list(want) and source.notes == ()
    assert source.class_names == tuple(sorted(set(want.values())))


@BOTH
def test_photos_next_to_class_folders_are_refused(tmp_path, container):
    message = (
        r"has 1 photos \(a.jpg\) next to 1 class folders \(pug\), so the class of these photos is unclear"
    )
    with pytest.raises(errors.UserError, match=message):
        image_files.source(make(tmp_path, container, ("a.jpg", "pug/b.jpg")))


@BOTH
def test_photos_next_to_what_may_be_class_folders_are_refused_in_the_only_folder_too(tmp_path, container):
    path = make(tmp_path, container, ("photos/x.jpg", "photos/cats/a.jpg", "photos/dogs/b.jpg"))
    with pytest.raises(errors.UserError, match=r"1 photos \(x.jpg\) next to 2 class folders \(cats, dogs\)"):
        image_files.source(path)


@BOTH
def test_what_is_left_out_is_counted_and_named_by_kind(tmp_path, container):
    names = [f"IMG_{i}.HEIC" for i in range(7)]
    names += [f"{i}{ext}" for i, ext in enumerate(listing.EXTENSIONS)]
    names += ["b.jpg.txt", "README", ".hidden.jpg", ".git/x/a.jpg", ".git/b.jpg", "__MACOSX/._b.jpg", "c."]
    source = image_files.source(make(tmp_path, container, names))
    assert sorted(photo.name for photo in source.photos) == sorted(names[7:-7])
    heic, *others = sorted(source.notes, key=lambda note: ".heic" not in note)
    assert heic.startswith("left out as .heic files: 7 (IMG_0.HEIC, ") and "IMG_4.HEIC and 2 more)" in heic
    assert "convert it to JPEG" in heic
    assert others == [
        "left out as hidden files or folders: 3 (.git, .hidden.jpg, __MACOSX)",
        "left out as files without an extension: 2 (README, c.)",
        "left out as .txt files: 1 (b.jpg.txt)",
    ]
    assert sum(int(note.split(": ")[1].split()[0]) for note in source.notes) == 13


@BOTH
def test_without_photos_the_error_says_what_there_is(tmp_path, container):
    with pytest.raises(
        FileNotFoundError, match=r"has no photos: looked for .jpg.*left out as .heic files: 1"
    ):
        image_files.source(make(tmp_path, container, ("a.heic",)))


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
@pytest.mark.parametrize("place", ["", "pug"])
def test_odd_entries_of_folders_are_left_out_anywhere(tmp_path, place):
    root = make(tmp_path, "folder", (pathlib.PurePosixPath(place, "a.jpg"),))
    (root / place / "nowhere.jpg").symlink_to("nothing")
    (root / place / "around").symlink_to(root)
    os.mkfifo(root / place / "pipe.jpg")
    (root / place / "linked.jpg").symlink_to(root / place / "a.jpg")
    source = image_files.source(root)
    prefix = f"{place}/" if place else ""
    assert [photo.name for photo in source.photos] == [f"{prefix}a.jpg", f"{prefix}linked.jpg"]
    links = f"2 ({prefix}around, {prefix}nowhere.jpg)"
    assert source.notes == (
        f"left out as links to nowhere or to a folder that they are in: {links}",
        f"left out as devices, pipes, sockets or links in a zip: 1 ({prefix}pipe.jpg)",
    )


@pytest.mark.parametrize("function", ["scandir", "stat"])
@pytest.mark.parametrize("code", [errno.EACCES, errno.EMFILE, errno.ESTALE, errno.EIO])
def test_what_cannot_be_opened_is_an_error_as_it_may_hold_photos(tmp_path, monkeypatch, function, code):
    """A folder without the right to enter it can be listed, and nothing in it be looked at."""
    root, original = make(tmp_path, "folder", ("pug/a.jpg", "locked/b.jpg")), getattr(os, function)

    def fail(path, **kwargs):
        if str(path).endswith("locked"):
            raise OSError(code, os.strerror(code), path)
        return original(path, **kwargs)

    monkeypatch.setattr(os, function, fail)
    message = f"locked cannot be read: {os.strerror(code)}. It may hold photos.* make it readable"
    with pytest.raises(errors.UserError, match=message):
        image_files.source(root)


@BOTH
def test_folders_of_systems_are_hidden(tmp_path, container):
    """As on a disk of its own, where they cannot be opened."""
    names = ("a.jpg", "lost+found/b.jpg", "$RECYCLE.BIN/c.jpg")
    source = image_files.source(make(tmp_path, container, names))
    assert classes(source) == {"a.jpg": "dogs"}
    assert source.notes == ("left out as hidden files or folders: 2 ($RECYCLE.BIN, lost+found)",)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("café/ü.jpg".encode(), "café/ü.jpg"),
        ("日本/a.jpg".encode(), "日本/a.jpg"),
        (b"caf\x82/b.jpg", "café/b.jpg"),  # of DOS
        (b"caf\xe9/b.jpg", "cafΘ/b.jpg"),  # unknown
    ],
)
def test_names_in_a_zip_are_utf8_also_without_the_flag(tmp_path, raw, name):
    """As the Finder of macOS writes them."""
    path = make(tmp_path, "zip", ["Q" * len(raw)])
    path.write_bytes(path.read_bytes().replace(b"Q" * len(raw), raw))
    (file,) = listing.of_zip(path).files
    assert file.name == name and file.read() == b"x"


def test_names_in_a_zip_that_are_equal_only_as_text_are_two(tmp_path):
    names = ("pug/a\nb.jpg", r"pug/a\nb.jpg")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            entry = zipfile.ZipInfo(name)
            entry.create_system = 3
            archive.writestr(entry, name.encode())
    listed = listing.of_zip(tmp_path / "a.zip")
    assert sorted(file.read().decode() for file in listed.files) == sorted(names)
    assert not listing.notes(listed)


def test_junk_does_not_count_as_bytes_of_photos(tmp_path, monkeypatch):
    """More pixels would be allowed for it; a file with holes takes no space on the disk."""
    root = make(tmp_path, "folder", ("a.jpg", "b.jpg"))
    with (root / "junk.bin").open("wb") as junk, (root / "b.jpg").open("wb") as holes:
        junk.truncate(1 << 32)
        holes.truncate(1 << 32)
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 1000)
    assert listing.of_folder(root).num_bytes == 1001


def test_zips_are_read_as_they_would_be_extracted(tmp_path):
    path = tmp_path / "odd.zip"
    link, windows = zipfile.ZipInfo("pug/link.jpg"), zipfile.ZipInfo("pug\\from_windows.jpg")
    link.external_attr, windows.create_system = (stat.S_IFLNK | 0o777) << 16, 0
    windows.filename = "pug\\from_windows.jpg"
    folder = zipfile.ZipInfo("akita")
    folder.filename, folder.create_system = "akita\\", 0
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # duplicate names are meant
        for name in ("pug/twice.jpg", "../../pug/up.jpg", "/pug/root.jpg", link, windows, folder):
            archive.writestr(name, b"first")
        archive.writestr("pug/twice.jpg", b"last")
    listed = listing.of_zip(path)
    assert [file.name for file in listed.files] == [
        f"pug/{name}.jpg" for name in ("from_windows", "root", "twice", "up")
    ]
    assert listed.files[2].read() == b"last"
    assert listing.notes(listed) == (
        "left out as files that a later one of the same name in the zip replaces: 1 (pug/twice.jpg)",
        "left out as devices, pipes, sockets or links in a zip: 1 (pug/link.jpg)",
    )


@pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="names must be UTF-8 there")
def test_names_that_are_not_utf8_are_carried_as_escapes(tmp_path, monkeypatch):
    folder = os.fsencode(tmp_path / "dogs") + b"/caf\xe9"
    os.makedirs(folder)
    for name in (b"\xff.jpg", b"line\nbreak.jpg"):
        with open(folder + b"/" + name, "wb") as file:
            file.write(b"x")
    source = image_files.source(tmp_path / "dogs")
    assert classes(source) == {
        "caf\\udce9/\\udcff.jpg": "caf\\udce9",
        "caf\\udce9/line\\nbreak.jpg": "caf\\udce9",
    }
    "".join([source.key, *source.class_names, *classes(source)]).encode("utf-8")
    with pytest.raises(photos.BrokenPhotoError, match="not an image"):  # so it was opened
        source.photos[0].read()
    with pytest.raises(errors.UserError, match=r"the path .*caf\\udce9 has bytes that are not UTF-8"):
        image_files.source(os.fsdecode(folder))
    monkeypatch.chdir(os.fsdecode(folder))
    source = image_files.source(".")
    assert source.class_names == ("caf\\udce9",) and source.key.startswith("folder-caf\\udce9-")


def test_huge_files_and_huge_numbers_of_files_are_limited(tmp_path, monkeypatch):
    root = make(tmp_path, "folder", ("a.jpg", "b.jpg"))
    (root / "a.jpg").write_bytes(b"xxxx")
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 3)
    with pytest.raises(photos.BrokenPhotoError, match="it has more than 3 bytes, the limit"):
        image_files.source(root).photos[0].read()
    monkeypatch.setattr(archives, "MAX_FILES", 1)
    with pytest.raises(errors.UserError, match="has more files and folders than the limit of 1"):
        image_files.source(root)


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_that_multiply_and_deep_folders_end(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILES", 5000)
    for i in range(40):
        (tmp_path / "many" / str(i)).mkdir(parents=True)
        for name in "ab":
            (tmp_path / "many" / str(i) / name).symlink_to(f"../{i + 1}")
    with pytest.raises(errors.UserError, match="has more files and folders than the limit of 5,000"):
        listing.of_folder(tmp_path / "many")
    deep = tmp_path / "deep" / "/".join("d" * 200)
    deep.mkdir(parents=True)
    (deep / "a.jpg").touch()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        assert len(listing.of_folder(tmp_path / "deep").files) == 1
    finally:
        sys.setrecursionlimit(limit)


def test_names_are_text_of_one_line():
    assert listing.printable("a\u2028b\u2029c\x85d\n\udce9é") == r"a\u2028b\u2029c\x85d\n\udce9é"


@pytest.mark.parametrize(
    ("name", "extension", "stem"),
    [
        ("2019.05.01.jpg", ".jpg", "2019.05.01"),
        ("a/p0.1", ".1", "p0.1"),
        ("a.b/c", "", "c"),
        (".jpg", "", ".jpg"),
        ("A.JPEG", ".jpeg", "A"),
        ("a.", "", "a."),
    ],
)
def test_only_known_extensions_are_cut(name, extension, stem):
    assert (listing.extension(name), listing.stem(name, listing.EXTENSIONS)) == (extension, stem)
