"""What passes on its way from the agent's sandbox into a fresh one, and what does not (A28)."""

import io
import tarfile

import pytest

from realwork.errors import ArtifactRejected, SandboxError
from realwork.sandbox.artifact import checked

FOLDER = tarfile.DIRTYPE
LINK = tarfile.SYMTYPE
HARD_LINK = tarfile.LNKTYPE


def entry(name, kind=tarfile.REGTYPE, *, content=b"", to="", mode=0o644):
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode, made.size = kind, to, mode, len(content)
    return made, content


def archive(*entries, root="."):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for made, content in (entry(root, FOLDER, mode=0o755), *entries):
            tar.addfile(made, io.BytesIO(content))
    return buffer.getvalue()


def passed(*entries, **options):
    data = archive(*entries)
    pieces = [data[at : at + 700] for at in range(0, len(data), 700)]
    with tarfile.open(fileobj=io.BytesIO(b"".join(checked(pieces, "/workspace", **options)))) as tar:
        return {one.name: (one, tar.extractfile(one).read() if one.isreg() else None) for one in tar}


def test_files_and_folders_pass_as_they_are_and_links_to_the_same_place():
    long = "./" + "d" * 120 + "/" + "ü" * 90
    found = passed(
        entry("./d", FOLDER, mode=0o700),
        entry("./d/a", content=b"x" * 1500, mode=0o755),
        entry("./d/l", LINK, to="../../etc/passwd"),
        entry("./d/h", HARD_LINK, to="./d/a"),
        entry(long, content=b"deep"),
    )
    assert found["./d/a"][1] == b"x" * 1500
    assert (found["./d"][0].mode, found["./d/a"][0].mode) == (0o700, 0o755)
    assert (found["./d/l"][0].linkname, found["./d/h"][0].linkname) == ("/etc/passwd", "./d/a")
    assert found[long][1] == b"deep"


def test_a_name_that_is_no_text_passes_unharmed():
    name = b"./\xff\xfe".decode("utf-8", "surrogateescape")
    assert passed(entry(name, content=b"1"))[name][1] == b"1"


@pytest.mark.parametrize(
    "entries",
    [
        [entry("../../x", content=b"1")],
        [entry("./a/../../x", content=b"1")],
        [entry("/etc/x", content=b"1")],
        [entry("./l", LINK, to="/etc"), entry("./l/x", content=b"1")],
        [entry("./d", FOLDER), entry("./d/l", LINK, to="/"), entry("./h", HARD_LINK, to="./d/l/x")],
        [entry("./h", HARD_LINK, to="/etc/shadow")],
        [entry("./h", HARD_LINK, to="../x")],
        [entry("./zero", tarfile.CHRTYPE)],
        [entry("./disk", tarfile.BLKTYPE)],
    ],
    ids=["parent", "hidden parent", "absolute", "through a link", "hard link through a link", "hard link out",
         "hard link to a parent", "character device", "block device"],
)  # fmt: skip
def test_what_leads_out_is_rejected(entries):
    """Without the checks of `_Gate` each of these passes."""
    with pytest.raises(ArtifactRejected):
        passed(*entries)


def test_set_id_bits_and_fifos_stay_behind():
    found = passed(entry("./root", content=b"1", mode=0o6755), entry("./fifo", tarfile.FIFOTYPE))
    assert found["./root"][0].mode == 0o755
    assert "./fifo" not in found


def test_a_million_entries_are_too_many():
    """Without the count of entries this passes."""

    def endless():
        yield entry(".", FOLDER)[0].tobuf()
        for number in range(1_000_000):
            yield tarfile.TarInfo(f"./{number}").tobuf(tarfile.USTAR_FORMAT)

    with pytest.raises(ArtifactRejected, match="entries"):
        for _ in checked(endless(), "/workspace", most_entries=1000):
            pass


def test_ten_gibibytes_of_zeros_are_refused_before_they_are_read():
    """Without the count of bytes this reads them all."""
    taken = 0

    def zeros():
        nonlocal taken
        yield entry(".", FOLDER)[0].tobuf()
        big = tarfile.TarInfo("./big")
        big.size = 10 << 30
        yield big.tobuf()
        while True:
            taken += 1
            yield bytes(1 << 20)

    with pytest.raises(ArtifactRejected, match="bytes"):
        for _ in checked(zeros(), "/workspace"):
            pass
    assert taken <= 2


def test_an_extended_header_that_does_not_fit_into_memory_is_refused():
    header = tarfile.TarInfo("./pax")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    with pytest.raises(ArtifactRejected, match="header"):
        list(checked([entry(".", FOLDER)[0].tobuf(), header.tobuf(tarfile.GNU_FORMAT), bytes(1 << 20)], "/workspace"))


WHOLE = archive(entry("./a", content=b"1" * 9000))


@pytest.mark.parametrize(
    "data", [b"", b"no tar at all" * 100, WHOLE[:4000], WHOLE[:1024], WHOLE[:1024] + b'{"message": "lost"}']
)
def test_what_is_no_whole_archive_is_the_engines_fault(data):
    """Without the look for the end of the archive two of these pass as a folder in which files are missing."""
    with pytest.raises(SandboxError) as caught:
        list(checked([data], "/workspace"))
    assert not isinstance(caught.value, ArtifactRejected)


def test_links_that_stay_within_and_absolute_ones_keep_their_words():
    links = {"./a/l": "../b", "./m": "a/../b", "./n": "/etc/x", "./a/o": "../../workspace/b"}
    found = passed(entry("./a", FOLDER), *(entry(name, LINK, to=to) for name, to in links.items()))
    assert {name: found[name][0].linkname for name in links} == links | {"./a/o": "/workspace/b"}


def test_a_hard_link_to_what_stays_behind_stays_behind():
    found = passed(entry("./fifo", tarfile.FIFOTYPE), entry("./link", HARD_LINK, to="./fifo"))
    assert "./link" not in found


def test_more_links_than_memory_should_hold_are_refused():
    """Without the bound on what is remembered this takes hundreds of MiB."""

    def endless():
        yield entry(".", FOLDER)[0].tobuf()
        for number in range(400_000):
            yield entry(f"./{'d' * 90}{number}", LINK, to="x")[0].tobuf()

    with pytest.raises(ArtifactRejected, match="links"):
        for _ in checked(endless(), "/workspace"):
            pass


def test_the_top_must_be_a_folder():
    with pytest.raises(ArtifactRejected, match="not a folder"):
        list(checked([archive(root=".")[512:], entry("./x")[0].tobuf()][1:], "/workspace"))


def test_what_is_left_out_takes_all_below_it_along():
    found = passed(
        entry("./keep", content=b"1"),
        entry("./tests", FOLDER),
        entry("./tests/a", content=b"1" * 5000),
        entry("./sub", FOLDER),
        entry("./sub/conftest.py", content=b"1"),
        entry("./link", HARD_LINK, to="./sub/conftest.py"),
        entry("./away", LINK, to="c"),
        entry("./last", content=b"2"),
        leave_out=lambda path, target: path == "tests" or path.endswith("conftest.py") or target == "c",
    )
    assert set(found) == {".", "./keep", "./sub", "./last"}
    assert found["./last"][1] == b"2"
