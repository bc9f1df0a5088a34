"""Text as people bring it: read alike everywhere, refused with file and line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gentron.errors import UserError
from gentron.textfiles import parse_csv, parse_json, read_csv, read_json, read_jsonl, read_lines, split_lines

BOM = "\ufeff"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_lines_end_at_lf_and_crlf_alone() -> None:
    text = "a\u2028b\x85c\x0cd\x0be\x1cf\rg\r\nsecond\n"
    assert split_lines(text) == ["a\u2028b\x85c\x0cd\x0be\x1cf\rg", "second"]
    assert split_lines("") == [] and split_lines("\n") == [""] and split_lines("a\n\nb") == ["a", "", "b"]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    assert read_lines(write(tmp_path / "a.txt", BOM + "red\r\nblue")) == ["red", "blue"]
    assert read_json(write(tmp_path / "a.json", BOM + '{"a": 1}')) == {"a": 1}
    assert [row.values for row in read_jsonl(write(tmp_path / "a.jsonl", BOM + '{"a": 1}\n'))] == [{"a": 1}]
    assert [row.values for row in read_csv(write(tmp_path / "a.csv", BOM + "a,b\n1,2\n"))] == [
        {"a": "1", "b": "2"}
    ]


def test_what_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "latin1.txt", "red\ncafé\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin1.txt:2: not UTF-8 text \(byte 0xe9 at 7\); save it as UTF-8"):
        read_lines(path)


@pytest.mark.parametrize(
    "text,reason",
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' stands there twice"),
        ('{"a": NaN}', "NaN is no JSON number"),
        ('{"a": -Infinity}', "-Infinity is no JSON number"),
        ('{"a": 1e999}', "1e999 is beyond any float"),
        ('{"a": "\\ud800"}', "half of a surrogate pair"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1', "not JSON: Expecting ',' delimiter at column 8"),
        ("", "not JSON: Expecting value"),
        ("1" * 5000, "not JSON that can be read: Exceeds the limit"),
    ],
)
def test_json_that_others_would_read_differently_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_json(text, "result.json:3")
    assert str(caught.value).startswith("result.json:3: not JSON") and reason in str(caught.value)


def test_good_json_stays_what_it_is() -> None:
    assert parse_json('{"a": [1, 2.5e3, null, "\\ud83d\\ude00 \u2028"]}', "x") == {
        "a": [1, 2500.0, None, "😀 \u2028"]
    }


def test_jsonl_names_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", '{"a": "x\u2028y"}\r\n\n  \n[1]\n')
    with pytest.raises(UserError, match=r"rows.jsonl:4: expected a JSON object, got '\[1\]'"):
        list(read_jsonl(path))
    path = write(tmp_path / "rows.jsonl", '{"a": 1}\n\n{"a": \n')
    with pytest.raises(UserError, match=r"rows.jsonl:3: not JSON: Expecting value"):
        list(read_jsonl(path))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_with_any_usual_delimiter(delimiter: str) -> None:
    text = (
        delimiter.join(["file", "caption"]) + "\r\n" + delimiter.join(["a.png", '"x,y;z\tw\nnext ""line"""'])
    )
    rows = list(parse_csv(text, "a.csv"))
    assert rows == [(2, {"file": "a.png", "caption": 'x,y;z\tw\nnext "line"'})]


def test_csv_rows_keep_the_line_they_begin_on() -> None:
    rows = parse_csv('a,b\n"one\ntwo\nthree",1\n\n x,2\n', "a.csv")
    assert [row.line for row in rows] == [2, 6]


def test_csv_faults_are_named() -> None:
    for text, reason in {
        "a,b\n1,2,3\n": "a.csv:2: expected at most 2 fields as in the header, got 3",
        'a,b\n"1,2\n': "a.csv:2: not CSV",
        "a,a\n1,2\n": "a.csv:1: the column 'a' stands in the header twice",
    }.items():
        with pytest.raises(UserError, match=reason):
            list(parse_csv(text, "a.csv"))
    assert list(parse_csv("", "a.csv")) == [] and list(parse_csv("a,b\n", "a.csv")) == []
    assert list(parse_csv("a,b\n1\n", "a.csv")) == [(2, {"a": "1", "b": ""})]
    assert len(list(parse_csv("a\n" + "x" * 200_000, "a.csv"))[0].values["a"]) == 200_000


def test_reading_is_linear_in_the_number_of_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "many.jsonl", '{"prompt": "a red circle"}\n' * 16_000)
    begin = time.perf_counter()
    assert sum(1 for _ in read_jsonl(path)) == 16_000
    assert time.perf_counter() - begin < 2
