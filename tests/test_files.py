import os
import threading

import pytest

from lora_sd.files import write_text, written


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(RuntimeError), written(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_text_takes_the_place_of_what_was_there(tmp_path):
    write_text(tmp_path / "file", "one")
    write_text(tmp_path / "file", "zwei ²")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "zwei ²"


def test_an_error_of_the_disk_names_the_file_that_was_to_be(tmp_path):
    with pytest.raises(OSError) as caught, written(tmp_path / "file"):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(tmp_path / "file") and caught.value.errno == 28


def test_threads_that_write_one_file_at_a_time_leave_one_whole(tmp_path):
    def write(letter):
        for _ in range(50):
            with written(tmp_path / "file", durable=False) as file:
                file.write(letter * 10_000)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    data = (tmp_path / "file").read_bytes()
    assert len(data) == 10_000 and len(set(data)) == 1
    assert os.listdir(tmp_path) == ["file"]
