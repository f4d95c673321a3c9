"""What may go wrong with a file, as Hypothesis strategies: for tests of what reads it."""

import copy

from hypothesis import strategies as st


@st.composite
def damaged(draw, content: bytes) -> bytes:
    """`content` with bits flipped, bytes overwritten, pieces cut out, doubled or put in, or its end cut off."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "flip", "write", "cut", "double", "put", "end"]))
        length = draw(st.integers(1, 40))
        if kind == "flip" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "write":
            content[at : at + length] = draw(st.binary(min_size=length, max_size=length))
        elif kind == "cut":
            del content[at : at + length]
        elif kind == "double":
            content[at:at] = content[at : at + length]
        elif kind == "put":
            content[at:at] = draw(st.binary(max_size=length))
        elif kind == "end":
            del content[at:]
    return bytes(content)


def file_like(content: bytes):
    """Any bytes at all, or those of a real file, damaged."""
    return st.one_of(damaged(content), st.binary(max_size=400))


LEAF = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6),
    st.sampled_from(["", "..", "../../x", "/etc/passwd", "(((a+)+)+)+$", "1e-3", "[a](b)", -1, 0, 2**70, 1e300]),
)  # fmt: skip
KEY = st.one_of(st.text(max_size=6), st.integers(), st.none(), st.booleans())


def nested(keys):
    return st.recursive(
        LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
    )


ANYTHING = nested(KEY)
JSON = nested(st.text(max_size=6))


def places(value, path=()):
    """The paths of all values inside a structure."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [p for key, child in inner for p in places(child, (*path, key))]


@st.composite
def altered(draw, value, junk):
    """A structure with one to three values replaced, taken away or added to."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        found = places(value)
        if not found:
            break
        *path, last = draw(st.sampled_from(found))
        parent = value
        for key in path:
            parent = parent[key]
        kind = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if kind == "replace":
            parent[last] = draw(junk)
        elif kind == "remove":
            del parent[last]
        elif isinstance(parent, dict):
            parent[draw(st.text(max_size=6))] = draw(junk)
    return value
