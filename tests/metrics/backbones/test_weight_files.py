"""State dicts and graphs that would fill the memory, hang or overflow the stack, and sound ones."""

import pickle
import tracemalloc
import zipfile
from collections.abc import Iterator

import numpy as np
import pytest

from jaxdog.metrics.backbones import inception_weights, pickles, weight_files
from tests.fuzz import samples


@pytest.fixture
def little_memory() -> Iterator[None]:
    """The test may use 20 MB."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize("layout", ["zip", "legacy", "graph"])
def test_sound_files_are_read(layout, tmp_path):
    path = tmp_path / "weights"
    made = {"zip": samples.zipped(samples.pth_members()), "legacy": samples.legacy()}
    path.write_bytes(made.get(layout, samples.graph()))
    found = weight_files.read_graph(path) if layout == "graph" else weight_files.read_torch(path)
    for name, x in samples.STATE.items():
        np.testing.assert_array_equal(found[name], x)
        assert found[name].shape == x.shape
    if layout == "graph":
        np.testing.assert_array_equal(found["repeated"], np.ones((5, 2)))


def test_state_dicts_of_python_2_are_read():
    """OrderedDict with a list of pairs, and names that are byte strings."""
    pairs = b"ccollections\nOrderedDict\nq\x00(]q\x01(]q\x02(U\x01aq\x03K\x05eetRq\x04."
    assert pickles.load(b"\x80\x02" + pairs)[0] == {"a": 5}


UNICODE, BYTES8 = pickle.BINUNICODE, pickle.BYTEARRAY8
DOUBLED = b"K\x01" + b"q\x00h\x00\x86" * 60  # (((1, 1), (1, 1)), ...), 2**60 numbers to hash
PAIRS = b"".join(b"](X\x04\x00\x00\x00%04dK\x01e" % i for i in range(999))
HOSTILE = {
    "declared bytes": (BYTES8 + (4 << 30).to_bytes(8, "little") + b".", "instruction b'.x96'"),
    "declared text": (UNICODE + b"\xff\xff\xff\xff.", "truncated, or larger than"),
    "a frame": (b"\x95" + b"\xff" * 8 + b".", "no state dict|damaged|truncated"),
    "a key that takes ages to hash": (b"}" + DOUBLED + b"K\x01s.", "a tuple as a key"),
    "a deep key": (b"})" + b"\x85" * 500_000 + b"K\x01s.", "a tuple as a key"),
    "a deep value": (b")" + b"\x85" * 500_000 + b".", ""),
    "many dictionaries": (b"}" * 900_000 + b"!.", "instruction b'!'"),
    "copies of copies": (
        b"ccollections\nOrderedDict\nq\x00](" + PAIRS + b"eq\x01" + b"h\x00h\x01\x85R" * 1000 + b".",
        "copies more than it holds",
    ),
    "a class": (b"cos\nsystem\n.", "asks for os.system"),
    "a name that moves the cursor": (b"cos\n\x1b[2J\n.", r"asks for 'os.\\x1b\[2J'"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pickles_are_refused(case):
    data, message = HOSTILE[case]
    tracemalloc.start()
    try:
        if message:
            with pytest.raises(weight_files.ArchiveError, match=message):
                pickles.load(b"\x80\x02" + data)
        else:
            pickles.load(b"\x80\x02" + data)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def test_pickles_with_arrays_make_few_objects_and_short_texts():
    """Their bytes may be many, for the numbers."""
    tracemalloc.start()
    try:
        with pytest.raises(weight_files.ArchiveError, match="more than 1,048,576 instructions, the limit"):
            pickles.load(b"\x80\x02" + b"}" * 2_000_000 + b".", arrays=True)
        text = b"a" * (2 << 20) + "\N{DOG}".encode()  # would take four bytes a letter
        data = UNICODE + len(text).to_bytes(4, "little") + text + b"."
        with pytest.raises(weight_files.ArchiveError, match="2,097,156 bytes of text that are not those"):
            pickles.load(b"\x80\x02" + data, arrays=True)
        assert tracemalloc.get_traced_memory()[1] < 150e6
    finally:
        tracemalloc.stop()


def test_a_bomb_in_a_zip_is_refused_before_it_is_unpacked(tmp_path, little_memory):
    members = samples.pth_members()
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in members.items():
            if name != "weights/data/0":
                archive.writestr(name, data)
        with archive.open("weights/data/0", "w", force_zip64=True) as file:
            for _ in range(1100):
                file.write(bytes(1 << 20))
    with pytest.raises(weight_files.ArchiveError, match="would unpack to more than 1,073,741,824 bytes"):
        weight_files.read_torch(path)


def test_a_zip_that_lies_about_a_size_is_refused(tmp_path, little_memory):
    """Twelve floats that unpack to more."""
    members = samples.pth_members() | {"weights/data/0": bytes(64 << 20)}
    data = bytearray(samples.zipped(members, zipfile.ZIP_DEFLATED))
    size = (64 << 20).to_bytes(4, "little")
    while (at := data.find(size)) >= 0:
        data[at : at + 4] = (48).to_bytes(4, "little")
    (tmp_path / "lie.pth").write_bytes(data)
    del members, data
    tracemalloc.reset_peak()
    with pytest.raises(weight_files.ArchiveError, match="'weights/data/0' is damaged in the archive"):
        weight_files.read_torch(tmp_path / "lie.pth")


def test_other_compression_is_refused(tmp_path):
    """bzip2 and LZMA unpack more than is asked for."""
    (tmp_path / "w.pth").write_bytes(samples.zipped(samples.pth_members(), zipfile.ZIP_BZIP2))
    with pytest.raises(weight_files.ArchiveError, match="compressed in a way other than deflate"):
        weight_files.read_torch(tmp_path / "w.pth")


def test_files_that_are_too_large_are_not_opened(tmp_path, monkeypatch):
    path = tmp_path / "w.pth"
    path.write_bytes(samples.legacy())
    monkeypatch.setattr(weight_files, "MAX_BYTES", 100)
    for read in (weight_files.read_torch, weight_files.read_graph):
        with pytest.raises(
            weight_files.ArchiveError, match=r"it has \d+ bytes; the limit for weights is 100"
        ):
            read(path)


def test_storages_that_share_a_name_are_refused(tmp_path):
    """Otherwise the bytes of one could be read as the other's."""
    a, b = pickles.Storage("<f4", "0", 1), pickles.Storage("<f8", "0", 1)
    tensors = {str(i): pickles.Tensor(storage, 0, (1,), (1,)) for i, storage in enumerate((a, b))}
    with pytest.raises(weight_files.ArchiveError, match="two of its storages have one name"):
        weight_files._storages(tensors)


NODE = samples.field(1, b"x") + samples.field(2, b"Const")
GRAPHS = {
    "a number where bytes belong": samples.field(
        1, NODE + samples.field(5, samples.field(1, b"value") + samples.field(2, samples.field(8, (
            samples.field(1, 1) + samples.field(4, 4 << 30)))))
    ),
    "a name that is a number": samples.field(1, NODE + samples.field(5, samples.field(1, 4 << 30))),
    "many repeated values": samples.constant(b"x", (1 << 27,), np.ones(2, np.float32).tobytes(), True),
    "one value for a shape that no array has": samples.constant(b"x", (1 << 30,) * 3, bytes(4)),
    "a huge shape": samples.constant(b"x", (1 << 40, 0), b""),
    "a shape with no value": samples.constant(b"x", (1 << 20,), b""),
}  # fmt: skip


@pytest.mark.parametrize("case", GRAPHS)
def test_hostile_graphs_are_refused(case, tmp_path, little_memory):
    (tmp_path / "graph.pb").write_bytes(GRAPHS[case])
    with pytest.raises(weight_files.ArchiveError):
        weight_files.read_graph(tmp_path / "graph.pb")


def test_one_value_may_stand_for_all(tmp_path, little_memory):
    """It takes no memory."""
    one = samples.constant(b"x", (1 << 20, 1 << 9), np.float32(7).tobytes())
    (tmp_path / "graph.pb").write_bytes(one * 50)
    assert weight_files.read_graph(tmp_path / "graph.pb")["x"].shape == (1 << 20, 1 << 9)


def test_a_kernel_that_declares_more_than_it_has_is_refused(tmp_path, little_memory):
    members = samples.folded_members()
    name = next(iter(members))
    members[name] = members[name].replace(b"(3, 3, 3, 32), }           ", b"(300000, 300000, 3, 32), } ")
    (tmp_path / "w.npz").write_bytes(samples.zipped(members))
    with pytest.raises(ValueError, match="declares shape .300000, 300000, 3, 32. of float32, and has 3,456"):
        inception_weights.load(tmp_path / "w.npz")
