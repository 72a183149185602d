"""`jaxft data check` and `convert` from the command line."""

import json
import shutil

import pytest

from jaxft.cli.main import USAGE, main


def test_check_reports_and_writes_json_and_a_page(photos, tmp_path, capsys):
    root = tmp_path / "photos"
    shutil.copytree(photos, root)
    (root / "dots" / "broken.png").write_bytes(b"no picture")
    (root / "nothing").mkdir()
    page, figures = tmp_path / "page.html", tmp_path / "figures.json"
    assert main(["data", "check", str(root), f"--sheet={page}", f"--json={figures}"]) == 0
    said = capsys.readouterr().out
    assert "dots/broken.png" in said
    assert "nothing" in said
    record = json.loads(figures.read_text())
    assert set(record["class_names"]) == {"dots", "nothing", *(folder.name for folder in photos.iterdir())}
    text = page.read_text()
    assert "broken.png" in text
    assert "data:image" in text
    assert "<script" not in text
    assert main(["data", "check", str(root), "--json=-", "--near=-1"]) == 0
    assert json.loads(capsys.readouterr().out)["near_bits"] is None


def test_convert_packs_a_folder_and_the_records_are_read(photos, tmp_path, capsys):
    out = tmp_path / "records"
    assert main(["data", "convert", str(photos), str(out), "--shards=2"]) == 0
    assert "30 all; 2 shards" in capsys.readouterr().out
    assert main(["data", "check", f"records:{out}"]) == 0
    assert "30" in capsys.readouterr().out
    assert main(["data", "convert", str(photos), str(out)]) == USAGE
    assert "exists: choose another folder, or overwrite it (--overwrite" in capsys.readouterr().err
    assert main(["data", "convert", str(photos), str(out), "--overwrite", "--max-side=4"]) == 0
    assert "30 pictures were encoded anew" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["chek", "x"], "invalid choice: 'chek'"),
        (["check"], "the following arguments are required: SOURCE"),
        (["check", "nowhere"], "no folder 'nowhere'"),
        (["check", "wsd:x.tar"], "did you mean 'wds'"),
        (["check", "PHOTOS", "--near=40"], "near is 40"),
        (["check", "PHOTOS", "--sheet=nowhere/page.html"], "cannot write nowhere/page.html: no folder"),
        (["convert", "PHOTOS", "out", "--quality=0"], "quality is 0: it must be at least 1"),
        (["convert", "PHOTOS", "out", "--task=sort"], "no task is called 'sort'"),
        (["check", "PHOTOS", "--config.seed=1"], "jaxft data takes no config"),
    ],
)
def test_mistakes_are_said_in_one_line(arguments, message, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = [str(photos) if argument == "PHOTOS" else argument for argument in arguments]
    assert main(["data", *given]) == USAGE
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
