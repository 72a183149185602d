"""Files made to do harm, and damaged ones: each ends at once, in an error for the user or in plain arrays."""

import io
import itertools
import os
import pickle
import pickletools
import random
import struct
import time
import zipfile

import numpy as np
import pytest

from jaxft.errors import JaxftError
from jaxft.weights import UnsafeCheckpoint, read
from jaxft.weights.pickle_machine import MAX_WORK

SECONDS = 20  # that one file may take on a slow, busy machine; what these files aim at is minutes to years
MUTANTS = 2000


# Pickles by hand: protocol 2, as torch writes them.
def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value):
    if 0 <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    raw = pickle.encode_long(value)
    return b"\x8b" + struct.pack("<i", len(raw)) + raw


def call(name, arguments):
    return b"c" + name.replace(" ", "\n").encode() + b"\n" + arguments + b"R"


def numbers(values):
    return b"(" + b"".join(integer(value) for value in values) + b"t"


def storage(key="0", numel=4, kind="FloatStorage"):
    return b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu") + integer(numel) + b"tQ"


def tensor(shape=(4,), strides=(1,), offset=0, **options):
    geometry = integer(offset) + numbers(shape) + numbers(strides)
    return call("torch._utils _rebuild_tensor_v2", b"(" + storage(**options) + geometry + b"\x89}t")


def checkpoint(value):
    return b"\x80\x02}" + text("x") + value + b"s."


RAW = np.arange(4, dtype=np.float32).tobytes()
GOOD = checkpoint(tensor())
BIG = b"](" + b"K\x01" * 100_000 + b"e"


def pairs(count):
    return b"](" + b"".join(integer(number) + b"N\x86" for number in range(count)) + b"e"


def doubled(opening, closing, times=200):
    """A container of twice the container before it: 2 ** times leaves by reference, a few bytes each in the file."""
    return (opening + b"h\x00h\x00" + closing + b"q\x000") * times + b"h\x00"


CODE = {
    "os.system by reduce": call("os system", text("touch $HARM") + b"\x85"),
    "posix.system by global": b"cposix\nsystem\n" + text("touch $HARM") + b"\x85R",
    "eval": call("builtins eval", text("open(__import__('os').environ['HARM'], 'w')") + b"\x85"),
    "exec by stack global": text("builtins") + text("exec") + b"\x93" + text("open('harm', 'w')") + b"\x85R",
    "a class with state": b"cos\n_wrap_close\n)\x81}" + text("x") + b"K\x01sb",
    "torch.load again": call("torch load", text("other.pth") + b"\x85"),
    "getattr chain": call("builtins getattr", b"cbuiltins\n__import__\n" + text("__call__") + b"\x86"),
    "numpy reconstruct": call("numpy.core.multiarray _reconstruct", b"cnumpy\nndarray\nK\x00\x85C\x01b\x87"),
    "rebuild with a function of the file": call(
        "torch._tensor _rebuild_from_type_v2", b"(cos\nsystem\ncos\nsystem\n" + text("touch $HARM") + b"\x85}t"
    ),
}
REFUSED = {
    "the inst opcode": b"(" + text("touch harm") + b"ios\nsystem\n",
    "the obj opcode": b"(cos\nsystem\n" + text("touch harm") + b"o",
    "an extension code": b"\x82\x01",
    "a next buffer": b"\x97",
    "a textual persistent id": b"Pstorage\n",
    "a call of a string": text("os.system") + text("x") + b"\x85R",
    "build on a list": b"]}b",
    "items of an integer": b"K\x01" + text("a") + b"K\x02s",
    "append to a dict": b"}K\x01a",
    "a key that is a list": b"}]K\x01s",
    "a mark on top": b"(",
    "an empty stack": b"000",
    "an unknown memo": b"h\x07",
    "a memo index of a gigabit": b"Np" + b"9" * 4000 + b"\n",
    "a huge key": b"}" + integer(1 << 70) + b"Ns",
    "a tuple key in a tuple key": b"}K\x01\x85\x85\x85Ns",
    "a storage that is not there": tensor(key="7"),
    "a storage of another kind": tensor(kind="QuantumStorage"),
    "a storage redeclared": tensor() + b"0" + tensor(kind="IntStorage"),
    "a storage longer than its file": tensor(numel=5),
    "a storage key with a path": tensor(key="../data.pkl"),
    "a view past the end": tensor(shape=(5,)),
    "a view past the end by offset": tensor(offset=1),
    "a view past the end by stride": tensor(shape=(2,), strides=(4,)),
    "an offset past the end of nothing": tensor(shape=(0,), offset=5),
    "a negative offset": tensor(offset=-1),
    "a negative size": tensor(shape=(-1,)),
    "a negative stride": tensor(shape=(2,), strides=(-1,)),
    "sizes that overflow 64 bits": tensor(shape=(1 << 33, 1 << 33), strides=(0, 0)),
    "strides that overflow 64 bits": tensor(shape=(3,), strides=(1 << 61,)),
    "empty with sides that overflow": tensor(shape=(0, 1 << 60, 1 << 60), strides=(1, 1, 1)),
    "more strides than sizes": tensor(shape=(2,), strides=(1, 1)),
    "too many sides": tensor(shape=(1,) * 40, strides=(1,) * 40),
    "a size that is a float": call(
        "torch._utils _rebuild_tensor_v2", b"(" + storage() + b"K\x00G" + bytes(8) + b"\x85K\x01\x85\x89}t"
    ),
    "a tensor of stride zero of a terabyte": tensor(shape=(1 << 38,), strides=(0,)),
    "many tensors of stride zero of a gigabyte": b"](" + tensor(shape=(1 << 24,), strides=(0,)) * 20 + b"e",
    "a tensor without a storage": call("torch._utils _rebuild_tensor_v2", b"(NK\x00)" + b")\x89}t"),
    "an unknown dtype": call(
        "torch._utils _rebuild_tensor_v3", b"(" + storage() + b"K\x00K\x04\x85K\x01\x85\x89}ctorch\nqint8\nt"
    ),
    "a parameter of a dict": call("torch._utils _rebuild_tensor_v2", b"}\x85"),
    "a scalar of the wrong size": call(
        "numpy.core.multiarray scalar", call("numpy dtype", text("f8") + b"\x85") + b"C\x01b\x86"
    ),
    "an ordered dict of a string": call("collections OrderedDict", text("ab") + b"\x85"),
    "nested calls": b"ctorch._tensor\n_rebuild_from_type_v2\n" * 5000 + b"N)" + b"N\x87N\x86R" * 5000,
}
SLOW = {
    "a flood of opcodes": b"N0" * (MAX_WORK // 2 + 1),
    "a long list copied without end": b"c__builtin__\nset\nq\x010" + BIG + b"q\x020" + b"h\x01h\x02\x85R0" * 100_000,
    "long pairs copied without end": b"ccollections\nOrderedDict\nq\x010"
    + pairs(10_000)
    + b"q\x020"
    + b"h\x01h\x02\x85R0" * 100_000,
    "a long string encoded without end": (
        b"c_codecs\nencode\nq\x010"
        + text("x" * 1_000_000)
        + b"q\x020"
        + text("latin1")
        + b"q\x030"
        + b"h\x01h\x02h\x03\x86R0" * 300_000
    ),
    "keys that collide": b"}(" + b"".join(integer(number * ((1 << 61) - 1)) + b"N" for number in range(1, 100_000)) + b"u",
    "tuples as keys": b"}(" + b"".join(integer(number) + b"\x85N" for number in range(100_000)) + b"u",
    "memo indices that collide": b"N" + b"".join(b"p%d\n" % (number * ((1 << 61) - 1)) for number in range(1, 50_000)),
}
SHARED = {
    "a list of itself": b"]q\x00h\x00a",
    "a dict of itself": b"}q\x00" + text("state_dict") + b"h\x00s",
    "lists doubled 200 times": b"]q\x000" + doubled(b"](", b"e"),
    "tuples doubled 200 times": b")q\x000" + doubled(b"", b"\x86"),
    "dicts doubled 200 times": b"}q\x000"
    + (b"}(" + text("state_dict") + b"h\x00" + text("model") + b"h\x00uq\x000") * 200
    + b"h\x00",
    "a dtype named by doubled lists": b"]q\x000" + doubled(b"](", b"e") + b"q\x010" + call("numpy dtype", b"h\x01\x85"),
    "a list nested 100,000 deep": b"]" * 100_000 + b"a" * 99_999,
    "a tuple nested 100,000 deep": b")" + b"\x85" * 100_000,
    "a dict nested 20,000 deep": (b"}" + text("model")) * 20_000 + b"}" + b"s" * 20_000,
}


#: Why each is refused: for what it is, not for a slip of the test's own.
REASONS = {
    "the inst opcode": "opcode INST",
    "the obj opcode": "opcode OBJ",
    "an extension code": "opcode EXT1",
    "a next buffer": "opcode NEXT_BUFFER",
    "a textual persistent id": "opcode PERSID",
    "a call of a string": "not a name",
    "build on a list": "BUILD on a list",
    "items of an integer": "SETITEM on a int",
    "append to a dict": "APPEND on a dict",
    "a key that is a list": "key of type list",
    "a mark on top": "no tensors",
    "an empty stack": "malformed",
    "an unknown memo": "malformed",
    "a memo index of a gigabit": "memo index",
    "a huge key": "integer key",
    "a tuple key in a tuple key": "tuples as keys",
    "a storage that is not there": "no member",
    "a storage of another kind": "unknown storage",
    "a storage redeclared": "declared twice",
    "a storage longer than its file": "cut short",
    "a storage key with a path": "no member",
    "a view past the end": "reaches to element 4",
    "a view past the end by offset": "reaches to element 4",
    "a view past the end by stride": "reaches to element 4",
    "an offset past the end of nothing": "reaches to element 5",
    "a negative offset": "not sizes",
    "a negative size": "not sizes",
    "a negative stride": "not sizes",
    "sizes that overflow 64 bits": "sides are too long",
    "strides that overflow 64 bits": "reaches to element",
    "empty with sides that overflow": "sides are too long",
    "more strides than sizes": "proper shape",
    "too many sides": "proper shape",
    "a size that is a float": "not sizes",
    "a tensor of stride zero of a terabyte": "claim more memory",
    "many tensors of stride zero of a gigabyte": "claim more memory",
    "a tensor without a storage": "without a storage",
    "an unknown dtype": "unknown dtype",
    "a parameter of a dict": "kind of tensor",
    "a scalar of the wrong size": "wrong size",
    "an ordered dict of a string": "OrderedDict of a str",
    "nested calls": "not a name",
}


@pytest.fixture
def in_both(make_zip, make_legacy, tmp_path):
    """value (a pickle) -> paths of a zip and of a legacy checkpoint that hold it."""

    def write(value):
        paths = (tmp_path / "new.pth", tmp_path / "old.pth")
        paths[0].write_bytes(make_zip(checkpoint(value), {"0": RAW}))
        paths[1].write_bytes(make_legacy(checkpoint(value), {"0": RAW}))
        return paths

    return write


def outcome(path):
    """The tensors of a file, none where it is refused; anything else that is raised fails the test."""
    message = ""
    start = time.process_time()
    try:
        found = read(path)
    except JaxftError as error:
        found, message = {}, str(error)
    assert time.process_time() - start < SECONDS
    assert "\n" not in message
    assert len(message) < 400 + len(str(path))
    # Every byte is there to be read.
    for value in found.values():
        assert isinstance(value, np.ndarray)
        assert value.nbytes < 1 << 30
        value.tobytes()
    return found


def test_the_corpus_starts_from_a_checkpoint_that_reads(in_both):
    for path in in_both(tensor()):
        np.testing.assert_array_equal(read(path)["x"], np.arange(4, dtype=np.float32))


@pytest.mark.parametrize("kind", CODE)
def test_no_name_in_a_file_is_called(kind, in_both, tmp_path, monkeypatch):
    harm = tmp_path / "harm"
    monkeypatch.setenv("HARM", str(harm))
    monkeypatch.chdir(tmp_path)
    before = set(os.listdir(tmp_path)) | {"new.pth", "old.pth"}
    for path in in_both(tensor() + b"s" + text("y") + CODE[kind]):
        # The call is inert, so the tensor beside it reads.
        assert list(outcome(path)) == ["x"]
    assert set(os.listdir(tmp_path)) == before


def test_a_call_in_place_of_all_tensors_is_said(in_both):
    for path in in_both(CODE["eval"]):
        with pytest.raises(UnsafeCheckpoint):
            read(path)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_crafted_pickle_is_refused(kind, in_both):
    new, old = in_both(REFUSED[kind])
    start = time.process_time()
    with pytest.raises(UnsafeCheckpoint, match=REASONS[kind]):
        read(new)
    with pytest.raises(UnsafeCheckpoint):
        read(old)
    assert time.process_time() - start < 2


@pytest.mark.parametrize("kind", SLOW)
def test_a_pickle_made_to_take_for_ever_is_refused_in_time(kind, in_both):
    start = time.process_time()
    with pytest.raises(UnsafeCheckpoint):
        read(in_both(SLOW[kind])[0])
    assert time.process_time() - start < SECONDS


@pytest.mark.parametrize("kind", SHARED)
def test_shared_and_deep_containers_end_in_time(kind, in_both):
    for path in in_both(SHARED[kind]):
        assert outcome(path) == {}
    # Beside a tensor they do no harm.
    for path in in_both(tensor() + b"s" + text("y") + SHARED[kind]):
        assert list(outcome(path)) == ["x"]


def test_overlapping_zip_members_are_refused(make_zip, tmp_path):
    data = bytearray(make_zip(GOOD, {"0": RAW, "1": RAW}))
    # The central directory's last entry points to the member before it.
    entries = [index for index in range(len(data)) if data[index : index + 4] == b"PK\x01\x02"]
    data[entries[-1] + 42 : entries[-1] + 46] = data[entries[-2] + 42 : entries[-2] + 46]
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(UnsafeCheckpoint, match="overlap"):
        read(tmp_path / "x.pth")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(make_zip, tmp_path):
    (tmp_path / "x.pth").write_bytes(make_zip(GOOD, {"0": RAW}, extra=[("archive/data/0", bytes(16))]))
    with pytest.raises(UnsafeCheckpoint, match="two members"):
        read(tmp_path / "x.pth")


def test_a_zip_that_inflates_a_thousandfold_is_refused(make_zip, tmp_path):
    data = make_zip(GOOD, {"0": bytes(200 << 20)}, compression=zipfile.ZIP_DEFLATED)
    assert len(data) < 1 << 20
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(UnsafeCheckpoint, match="compressed"):
        read(tmp_path / "x.pth")


def test_a_flipped_bit_of_a_tensor_in_a_zip_is_found(make_zip, tmp_path):
    data = make_zip(GOOD, {"0": RAW})
    at = data.index(RAW)
    (tmp_path / "x.pth").write_bytes(data[: at + 5] + bytes([data[at + 5] ^ 1]) + data[at + 6 :])
    with pytest.raises(UnsafeCheckpoint, match="damaged"):
        read(tmp_path / "x.pth")


@pytest.mark.parametrize("kind", ["scalars", "legacy_scalars"])
def test_a_file_cut_short_anywhere_is_refused(kind, fixtures, tmp_path):
    data, path = (fixtures / f"{kind}.pth").read_bytes(), tmp_path / "x.pth"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(JaxftError):
            read(path)


@pytest.mark.parametrize("kind", ["plain", "legacy_training", "float8", "odd_beside", "legacy_views"])
def test_flipped_bytes_never_escape_as_another_error(kind, fixtures, tmp_path):
    data, path, rng = (fixtures / f"{kind}.pth").read_bytes(), tmp_path / "x.pth", random.Random(kind)
    refused = 0
    for _ in range(MUTANTS // 5):
        mutant = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 4, 16))):
            mutant[rng.randrange(len(mutant))] = rng.choice((0, 255, rng.randrange(256)))
        path.write_bytes(mutant)
        refused += not outcome(path)
    assert refused > 0


def opcodes(data):
    """The pickle cut into its opcodes."""
    places = [position for _, _, position in pickletools.genops(data)] + [len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


def mutated(parts, donors, rng):
    """Opcodes dropped, doubled, swapped, taken from elsewhere, or with extreme arguments."""
    parts = list(parts)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at, other = rng.randrange(len(parts)), rng.randrange(len(parts))
        match rng.randrange(6):
            case 0:
                del parts[at]
            case 1:
                parts.insert(at, parts[other])
            case 2:
                parts[at], parts[other] = parts[other], parts[at]
            case 3:
                parts.insert(at, rng.choice(donors))
            case 4 if parts[at][:1] in b"KMJ":
                parts[at] = integer(rng.choice((0, 1, -1, 255, 1 << 31, (1 << 62) - 1, 1 << 63, 1 << 200)))
            case _:
                parts[at] = rng.choice(donors)
    return b"".join(parts)


@pytest.mark.parametrize("kind", ["plain", "training", "float8", "odd_beside", "protocol4"])
def test_structural_mutants_never_escape_as_another_error(kind, fixtures, make_zip, tmp_path):
    path, rng = tmp_path / "x.pth", random.Random(kind)
    with zipfile.ZipFile(io.BytesIO((fixtures / f"{kind}.pth").read_bytes())) as archive:
        root = archive.namelist()[0].split("/")[0]
        data = archive.read(f"{root}/data.pkl")
        keys = [name.rsplit("/", 1)[1] for name in archive.namelist() if "/data/" in name]
        storages = {key: archive.read(f"{root}/data/{key}") for key in keys}
    parts = opcodes(data)
    donors = [
        *parts,
        *(bytes([code]) for code in b"(.0123NQRabdehlorstu]})\x81\x85\x86\x87\x88\x89\x93\x94"),
        b"\x8f",
        b"\x90",
    ]
    refused = 0
    for _ in range(MUTANTS // 5):
        path.write_bytes(make_zip(mutated(parts, donors, rng), storages))
        refused += not outcome(path)
    assert 0 < refused < MUTANTS // 5
