import pickle

from realwork.environment import PackedFolder


def test_processes_share_the_bytes_of_a_folder():
    buffers = []
    folder = PackedFolder(name="kit", content=b"x" * 100_000)
    small = pickle.dumps(folder, protocol=5, buffer_callback=buffers.append)
    shared = bytearray(buffers[0].raw())
    received = pickle.loads(small, buffers=[memoryview(shared).toreadonly()])
    assert len(small) < 1000
    assert (received.name, received.archive, received.digest) == ("kit", folder.archive, folder.digest)
    shared[0] = 0
    assert received.archive[0] == 0


def test_a_folder_can_be_sent_on_from_shared_memory():
    received = pickle.loads(pickle.dumps(PackedFolder(name="kit", content=memoryview(b"xyz")), protocol=5))
    assert received.archive == b"xyz"
