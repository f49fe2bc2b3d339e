"""Files of users: the new one replaces the old one when it is complete."""

import contextlib

from readers.files import replacing


def test_what_was_there_stays_until_the_new_file_is_complete(tmp_path):
    path, link = tmp_path / "features.csv", tmp_path / "link.csv"
    link.symlink_to(path)
    path.write_text("old")
    with contextlib.suppress(KeyboardInterrupt), replacing(link) as part:  # Ctrl-C halfway
        part.write_text("ha")
        assert path.read_text() == "old"
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert not part.exists()
    with replacing(link) as part:
        part.write_text("new")
    assert path.read_text() == "new"
    assert link.is_symlink()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["features.csv", "link.csv"]
