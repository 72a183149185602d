"""Structure-aware mutants of good checkpoints: parts are changed, then put together again with right checksums.

Mutant `number` of `seed` is always the same file.
"""

import pickle
import random

from drafts import END_FIELDS, FIELDS, Draft, bases
from pickle_changes import BOUNDARIES, PICKLE, TEXTS, boundary

__all__ = ["KINDS", "bases", "mutant"]


def _member(draft, rng):
    """A member renamed, doubled, left out, moved, or with another content."""
    if not draft.members:
        return
    at = rng.randrange(len(draft.members))
    name, data = draft.members[at]
    match rng.randrange(6):
        case 0:
            new = (
                name + "x",
                name[:-1],
                "../" + name,
                "/etc/passwd",
                name.replace("/", "\\"),
                "",
                name.upper(),
                "a\0b",
                "\udcff",
            )
            draft.members[at] = rng.choice(new), data
        case 1:
            draft.members.insert(rng.randrange(len(draft.members) + 1), (name, data))
        case 2:
            del draft.members[at]
        case 3:
            rng.shuffle(draft.members)
        case 4:
            draft.members[at] = name, rng.choice((data[:-1], data + b"x", b"", data * 2, bytes(len(data)), b"big"))
        case _:
            extra = ("data.pkl", "constants.pkl", "code/x.py", "byteorder", "version", "data/0", "x.npy")
            draft.members.append((f"{rng.choice((draft.base.root, 'other'))}/{rng.choice(extra)}", b"\x80\x02}."))


def _field(draft, rng):
    """A field of the directory's entry for one member."""
    number = rng.randrange(len(draft.members) + 1)
    key = rng.choice(list(FIELDS))
    target = rng.choice((0, 1, 8, 99, 0xFFFF, 0xFFFFFFFF, 0x7FFFFFFF))
    change = rng.choice((lambda n: n + 1, lambda n: n - 1, lambda n: 2 * n, lambda n: n ^ 1, lambda n: target))
    draft.fields.setdefault(number, {})[key] = change


def _directory(draft, rng):
    """The end of the directory: counts, sizes, places, a comment, the fields of 64 bits."""
    target = rng.choice(BOUNDARIES)
    change = rng.choice((lambda n: n + 1, lambda n: n - 1, lambda n: n + 46, lambda n: target, lambda n: n))
    match rng.randrange(4):
        case 0:
            draft.wide = [lambda n: n] * 5
            draft.wide[rng.randrange(5)] = change
        case 1:
            draft.tail = bytes(rng.randrange(1, 40))
            if rng.random() < 0.7:
                size = len(draft.tail)
                draft.end["comment"] = lambda n: size
        case _:
            draft.end[rng.choice(list(END_FIELDS))] = change


def _keys(draft, rng):
    """The list of a legacy file's storages."""
    if not draft.keys or type(draft.keys) is not list:
        return
    at = rng.randrange(len(draft.keys))
    match rng.randrange(5):
        case 0:
            del draft.keys[at]
        case 1:
            draft.keys.append(draft.keys[at])
        case 2:
            rng.shuffle(draft.keys)
        case 3:
            draft.keys[at] = rng.choice((*TEXTS, 0, None, -1, 1 << 70))
        case _:
            draft.keys = rng.choice(([], {}, None, tuple(draft.keys), draft.keys[0], dict.fromkeys(draft.keys)))


def _sizes(draft, rng):
    """The length that a legacy file's storage says it has, or its bytes."""
    if draft.storages:
        at = rng.randrange(len(draft.storages))
        key, numel, raw = draft.storages[at]
        if rng.random() < 0.6:
            numel = boundary(rng, numel)
        else:
            raw = rng.choice((raw[:-1], raw + b"x", b"", raw * 2))
        draft.storages[at] = key, numel, raw


def _head(draft, rng):
    """The pickles before a legacy file's own, in another order, or others."""
    at = rng.randrange(3)
    other = (
        pickle.dumps(rng.choice((1001, 1002, {}, [], {"little_endian": False}, 1 << 70)), 2),
        b"\x80\x02NQ.",
        draft.head[0],
    )
    draft.head[at] = rng.choice((*other, b"", draft.head[at][:-1]))


_ZIP = {"zip member": _member, "zip field": _field, "zip directory": _directory}
_LEGACY = {"legacy keys": _keys, "legacy storages": _sizes, "legacy head": _head}
KINDS = (*PICKLE, *_ZIP, *_LEGACY, "bytes of the file")


def _file_bytes(data, rng):
    data = bytearray(data)
    match rng.randrange(3):
        case 0:
            for _ in range(rng.choice((1, 1, 4, 16))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 1:
            del data[rng.randrange(len(data)) :]
        case _:
            at = rng.randrange(len(data))
            data[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
    return bytes(data)


def _change(draft, rng):
    """Makes a change, and gives its kind."""
    table = PICKLE if draft.pickle and rng.random() < 0.83 else _ZIP if not draft.base.legacy else _LEGACY
    kind = rng.choice(list(table))
    table[kind](draft, rng)
    return kind


def mutant(found, seed, number):
    """(the file, the kind of its first change, the `Base` it was made from) of the mutants of some bases.

    Small ones are taken more often, in proportion: so many opcodes of each are changed.
    """
    rng = random.Random(f"{seed}:{number}")
    legacy = rng.random() < 0.3
    kin = [base for base in found if base.legacy is legacy]
    base = rng.choices(kin, [1 / len(base.pickle) for base in kin])[0]
    draft, kinds = Draft(base, found, rng), []
    if rng.random() < 0.04:
        return _file_bytes(base.whole, rng), "bytes of the file", base
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        kinds.append(_change(draft, rng))
    while (data := draft.bytes()) == base.whole:  # what was to be changed may not be there
        kinds = [_change(draft, rng)]
    return data, kinds[0], base
