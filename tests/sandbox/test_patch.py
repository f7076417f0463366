"""Changes as text: as git writes them, and never more than fits."""

import random
import shutil
import subprocess
import time

import pytest

from realwork.sandbox import patch as module
from realwork.sandbox.patch import EXECUTABLE, LINK, REGULAR, SPECIAL, Change, File, patch


def file(content, mode=REGULAR):
    return File(mode, content, len(content))


def changed(before, after, path="f"):
    return patch([Change(path, None if before is None else file(before), file(after))])


def test_nothing_changed_is_no_text():
    assert patch([]) == ""


def test_an_added_a_changed_and_a_deleted_file_read_as_git_writes_them():
    changes = [
        Change("a", None, file(b"1\n2\n")),
        Change("b c", file(b"".join(b"%d\n" % n for n in range(1, 20))), file(b"1\n2\n3\n4\n5\n6\nsix\n")),
        Change("d", file(b"gone"), None),
        Change("e", None, file(b"")),
    ]
    assert patch(changes) == (
        "diff --git a/a b/a\nnew file mode 100644\n--- /dev/null\n+++ b/a\n@@ -0,0 +1,2 @@\n+1\n+2\n"
        "diff --git a/b c b/b c\n--- a/b c\t\n+++ b/b c\t\n@@ -4,16 +4,4 @@\n 4\n 5\n 6\n"
        + "".join(f"-{n}\n" for n in range(7, 20))
        + "+six\n"
        "diff --git a/d b/d\ndeleted file mode 100644\n--- a/d\n+++ /dev/null\n@@ -1 +0,0 @@\n-gone\n"
        "\\ No newline at end of file\n"
        "diff --git a/e b/e\nnew file mode 100644\n"
    )


def test_a_newline_that_came_at_the_end_shows():
    assert changed(b"x", b"x\n").endswith("@@ -1 +1 @@\n-x\n\\ No newline at end of file\n+x\n")


def test_a_mode_a_link_and_a_file_that_became_one():
    changes = [
        Change("a", file(b"x\n"), file(b"x\n", EXECUTABLE)),
        Change("b", file(b"/old", LINK), file(b"/new", LINK)),
        Change("c", file(b"x\n"), file(b"t", LINK)),
    ]
    assert patch(changes) == (
        "diff --git a/a b/a\nold mode 100644\nnew mode 100755\n"
        "diff --git a/b b/b\n--- a/b\n+++ b/b\n@@ -1 +1 @@\n-/old\n\\ No newline at end of file\n"
        "+/new\n\\ No newline at end of file\n"
        "diff --git a/c b/c\ndeleted file mode 100644\n--- a/c\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"
        "diff --git a/c b/c\nnew file mode 120000\n--- /dev/null\n+++ b/c\n@@ -0,0 +1 @@\n+t\n"
        "\\ No newline at end of file\n"
    )


def test_what_is_no_text_only_differs():
    assert changed(None, b"\0\1") == (
        "diff --git a/f b/f\nnew file mode 100644\nBinary files /dev/null and b/f differ\n"
    )


def test_bytes_that_are_no_text_are_replaced_and_names_quoted():
    text = changed(b"caf\xe9\n", b"caf\xc3\xa9\n", '\udce9 "\t\nö\x01')
    assert text == (
        'diff --git "a/\\351 \\"\\t\\nö\\001" "b/\\351 \\"\\t\\nö\\001"\n--- "a/\\351 \\"\\t\\nö\\001"\n'
        '+++ "b/\\351 \\"\\t\\nö\\001"\n@@ -1 +1 @@\n-caf\N{REPLACEMENT CHARACTER}\n+café\n'
    )
    assert patch([Change("日本", None, file(b""))]).startswith("diff --git a/日本 b/日本\n")


def test_carriage_returns_and_form_feeds_end_no_line():
    assert changed(b"a\rb\x0c\r\n", b"a\rc\r\n").endswith("@@ -1 +1 @@\n-a\rb\x0c\r\n+a\rc\r\n")


def test_what_is_too_large_says_so_and_what_is_neither_file_nor_link_too():
    large = File(REGULAR, None, 300_000)
    assert patch([Change("f", large, large._replace(size_bytes=300_001))]) == (
        "diff --git a/f b/f\n# The content is not shown: 300000 bytes before, 300001 after\n"
    )
    assert patch([Change("p", None, File(SPECIAL, None, 0))]) == "# b/p: neither a file nor a link, added\n"


def test_what_is_beyond_the_bounds_is_counted():
    many = [Change(f"{number:04}", None, file(b"x\n")) for number in range(1012)]
    text = patch(many)
    assert text.count("diff --git") == 1000
    assert text.endswith("# 12 more files changed\n")
    large = [Change(str(number), None, file(b"x" * (250 << 10))) for number in range(5)]
    text = patch(large)
    assert len(text) < module.MOST_CHARACTERS
    assert text.endswith("# 1 more file changed\n")


def test_the_history_is_counted_alone():
    changes = [Change(path, None, file(b"x\n")) for path in (".git/index", ".gitignore", "sub/.git/HEAD")]
    text = patch(changes)
    assert text.startswith("diff --git a/.gitignore b/.gitignore\n")
    assert text.count("diff --git") == 1
    assert text.endswith("# 2 files changed in .git\n")


def lines(count, seed):
    source = random.Random(seed)
    return [b"%d\n" % source.randrange(50) for _ in range(count)]


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git on this machine")
@pytest.mark.parametrize("count", [0, 1, 3, 7, 40, 400, 9000])
def test_git_applies_what_is_written(tmp_path, count):
    source = random.Random(count)
    before = lines(count, 1)
    after = [line for line in before if source.random() > 0.1]
    for _ in range(5):
        after.insert(source.randrange(len(after) + 1), b"new\n")
    after[-1] = after[-1].rstrip()
    (tmp_path / "f").write_bytes(b"".join(before))
    text = changed(b"".join(before), b"".join(after))
    subprocess.run(["git", "apply", "-"], input=text.encode(), cwd=tmp_path, check=True)
    assert (tmp_path / "f").read_bytes() == b"".join(after)


def shuffled(count, width):
    content = [b"%d\n" % (number % width) for number in range(count)]
    random.Random(1).shuffle(content)
    return b"".join(content)


@pytest.mark.parametrize("width", [1, 2, 30, 100, 400, 4000, 8000])
def test_files_that_differ_everywhere_take_no_longer(width):
    began = time.monotonic()
    for count in (190, 2000, 7999, 30_000):
        text = changed(b"".join(sorted(shuffled(count, width).splitlines(keepends=True))), shuffled(count, width))
        assert text.startswith("diff --git")
    assert time.monotonic() - began < 5


def test_more_than_there_is_time_for_is_an_error():
    with pytest.raises(TimeoutError):
        patch([Change("f", None, file(b""))] * 2, longest_s=-1)
