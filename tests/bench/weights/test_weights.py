from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import bench.weights as weights
from bench.commands.weights import weights_app
from bench.weights import (
    INDEX,
    RANDOM_NOTE,
    WEIGHTS,
    MissingWeights,
    WeightFile,
    add,
    fetch,
    locate,
    make_random,
    models_folder,
    weight_file,
)
from gentron.errors import UserError

CONTENT = b"weights " * 1000
OTHER = b"changed " * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()
OTHER_SHA = hashlib.sha256(OTHER).hexdigest()


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "models"
    monkeypatch.setenv("GENTRON_MODELS", str(folder))
    return folder


Register = Callable[..., WeightFile]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Puts the file 'tiny', for which there is no loader, into the registry."""

    def enter(
        *,
        url: str | None = None,
        sha256: str | None = None,
        prefix: str | None = None,
        module: str = "bench.no_such_module",
    ) -> WeightFile:
        entry = WeightFile(
            id="tiny",
            file="tiny.bin",
            what="a file of a test",
            url=url,
            licence="MIT",
            size=None,
            sha256=sha256,
            sha256_prefix=prefix,
            unlocks=(),
            module=module,
        )
        monkeypatch.setitem(WEIGHTS, "tiny", entry)
        return entry

    return enter


def put(models: Path, content: bytes = CONTENT, name: str = "tiny.bin") -> Path:
    models.mkdir(parents=True, exist_ok=True)
    (models / name).write_bytes(content)
    return models / name


def run(*args: str) -> Result:
    return CliRunner().invoke(weights_app, list(args))


def assert_one_line(done: Result, *parts: str) -> None:
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    for part in parts:
        assert part in done.stderr


# ---- registry --------------------------------------------------------------------------------------------


def test_registry_names_every_network_once_with_origin_and_licence() -> None:
    assert set(WEIGHTS) == {
        "blip-vqa", "blip-vqa-hf384", "unidet-rs200", "unidet-r50", "unidet-labels", "dpt-hybrid",
        "clip-vit-b-32", "clip-vit-l-14-336", "inception", "dinov2-vit-l-14", "bert-vocab",
        "compbench-objects",
    }  # fmt: skip
    assert len({weight.file for weight in WEIGHTS.values()}) == len(WEIGHTS)
    for id, weight in WEIGHTS.items():
        assert weight.id == id and weight.licence and weight.unlocks
        assert weight.url is not None and weight.url.startswith("https://")
        assert weight.sha256 is None or re.fullmatch("[0-9a-f]{64}", weight.sha256)
        if weight.sha256_prefix is not None:
            assert weight.sha256_prefix in weight.file


def test_importing_the_registry_and_the_commands_loads_no_heavy_library() -> None:
    code = (
        "import sys, bench.weights, bench.commands.weights;"
        "heavy = ('torch', 'numpy', 'PIL', 'transformers', 'scipy', 'rich.table');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_models_folder_is_the_named_one_else_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENTRON_MODELS", "/somewhere")
    assert models_folder() == Path("/somewhere")
    monkeypatch.delenv("GENTRON_MODELS")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert models_folder() == Path("/cache/gentron/models")


def test_unknown_id_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown weights 'blip'; known: blip-vqa, "):
        weight_file("blip")


# ---- locate ----------------------------------------------------------------------------------------------


def test_missing_file_says_what_and_the_way_on(models: Path) -> None:
    with pytest.raises(MissingWeights) as caught:
        locate("blip-vqa")
    for part in (
        "missing weights 'blip-vqa'",
        "model_base_vqa_capfilt_large.pth",
        str(models),
        "weights fetch blip-vqa",
        "weights add blip-vqa FILE",
    ):
        assert part in str(caught.value)
    assert not models.exists(), "looking for a file makes no folder"


def test_pinned_file_is_found_and_a_wrong_one_named_with_both_hashes(
    models: Path, register: Register
) -> None:
    register(sha256=SHA)
    path = put(models)
    found = locate("tiny")
    assert (found.path, found.sha256, found.random) == (path, SHA, False)
    put(models, OTHER)
    with pytest.raises(UserError, match=f"expected sha256 {SHA}, got {OTHER_SHA}.*fetch tiny --replace"):
        locate("tiny")


def test_published_beginning_of_a_hash_is_checked(models: Path, register: Register) -> None:
    register(prefix=SHA[:8])
    put(models)
    assert locate("tiny").sha256 == SHA
    put(models, OTHER)
    with pytest.raises(UserError, match=f"begins with {SHA[:8]}, got {OTHER_SHA}"):
        locate("tiny")


def test_unpinned_file_is_recorded_and_a_later_change_is_an_error(models: Path, register: Register) -> None:
    register()
    put(models)
    assert locate("tiny").sha256 == SHA
    recorded = json.loads((models / INDEX).read_text())["files"]["tiny"]["recorded"]
    put(models, OTHER)
    for _ in range(2):  # refusing it is no recording either
        with pytest.raises(UserError) as caught:
            locate("tiny")
        for part in (SHA, OTHER_SHA, recorded, "--replace"):
            assert part in str(caught.value)
    put(models)
    assert locate("tiny").sha256 == SHA


def test_a_file_is_hashed_once_until_its_size_or_time_changes(
    models: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    path = put(models)
    hashed: list[Path] = []
    real = weights.file_sha256
    monkeypatch.setattr(weights, "file_sha256", lambda path: hashed.append(path) or real(path))
    for _ in range(3):
        locate("tiny")
    assert hashed == [path]
    os.utime(path, ns=(1, 1))
    assert locate("tiny").sha256 == SHA
    locate("tiny")
    assert len(hashed) == 2


def test_rehash_finds_a_change_that_kept_size_and_time(models: Path, register: Register) -> None:
    register()
    path = put(models)
    locate("tiny")
    time = path.stat().st_mtime_ns
    put(models, OTHER)
    os.utime(path, ns=(time, time))
    assert locate("tiny").sha256 == SHA, "what the cache is for"
    with pytest.raises(UserError, match=OTHER_SHA):
        locate("tiny", rehash=True)


def test_models_folder_that_cannot_be_written_still_serves(
    models: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(sha256=SHA)
    put(models)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(weights, "_write_index", refuse)
    assert locate("tiny").sha256 == SHA


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 9, "files": {}}', '{"schema_version": 1}'])
def test_broken_index_is_named_with_the_way_on(models: Path, register: Register, text: str) -> None:
    register()
    put(models)
    (models / INDEX).write_text(text)
    with pytest.raises(UserError, match="cannot read '.*weights.json'.*delete it"):
        locate("tiny")


def test_several_writers_keep_each_others_records(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        dataclasses.replace(WEIGHTS["bert-vocab"], id=f"tiny-{i}", file=f"{i}.bin", sha256=None)
        for i in range(8)
    ]
    for entry in entries:
        monkeypatch.setitem(WEIGHTS, entry.id, entry)
        put(models, entry.id.encode(), entry.file)
    threads = [threading.Thread(target=locate, args=(entry.id, models)) for entry in entries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(json.loads((models / INDEX).read_text())["files"]) == {entry.id for entry in entries}


# ---- add -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", [False, True])
def test_added_file_is_copied_or_linked_and_recorded(
    models: Path, register: Register, tmp_path: Path, link: bool
) -> None:
    register()
    source = put(tmp_path / "downloads", name="anything.pth")
    located = add("tiny", source, link=link)
    assert located == locate("tiny")
    assert located.path.is_symlink() == link and located.path.read_bytes() == CONTENT
    assert source.read_bytes() == CONTENT


def test_added_file_of_the_wrong_hash_leaves_nothing(
    models: Path, register: Register, tmp_path: Path
) -> None:
    register(sha256=SHA)
    source = put(tmp_path / "downloads", OTHER)
    done = run("add", "tiny", str(source))
    assert_one_line(done, SHA, OTHER_SHA, str(source))
    assert not list(models.iterdir())


def test_another_content_is_added_only_with_replace(models: Path, register: Register, tmp_path: Path) -> None:
    register()
    add("tiny", put(tmp_path / "a"))
    other = put(tmp_path / "b", OTHER)
    with pytest.raises(UserError, match=f"expected sha256 {SHA}, got {OTHER_SHA}"):
        add("tiny", other)
    assert locate("tiny").sha256 == SHA
    add("tiny", other, replace=True)
    assert locate("tiny").sha256 == OTHER_SHA


def test_file_put_in_place_by_hand_can_be_added_where_it_is(models: Path, register: Register) -> None:
    register()
    path = put(models)
    assert add("tiny", path) == locate("tiny")


def test_adding_what_is_not_there_is_one_line(models: Path, tmp_path: Path) -> None:
    assert_one_line(run("add", "blip-vqa", str(tmp_path / "no.pth")), "no file", "no.pth")
    assert_one_line(run("add", "blip", str(tmp_path)), "unknown weights 'blip'")


def test_keys_are_checked_before_a_file_gets_its_place(models: Path, tmp_path: Path) -> None:
    source = put(tmp_path / "downloads", b"<html>quota exceeded</html>")
    assert_one_line(run("add", "blip-vqa", str(source)), f"cannot read '{source}'")
    assert not list(models.iterdir())


# ---- random weights --------------------------------------------------------------------------------------


def test_random_weights_are_marked_and_the_same_for_a_seed(models: Path, tmp_path: Path) -> None:
    done = run("random", "bert-vocab", "compbench-objects")
    assert done.exit_code == 0 and RANDOM_NOTE in done.stdout
    assert locate("bert-vocab").random and locate("compbench-objects").random
    again = make_random("compbench-objects", tmp_path / "other", seed=0)
    assert again.sha256 == locate("compbench-objects").sha256
    assert make_random("compbench-objects", seed=1).sha256 != again.sha256, "random ones may be replaced"


def test_random_file_does_not_depend_on_the_names_of_its_making(
    models: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def save(id: str, path: Path, *, seed: int) -> None:
        torch.save({"x": torch.zeros(1)}, path)

    register(module="bench.scorers.numeracy")
    monkeypatch.setattr("bench.scorers.numeracy.random_weights", save)
    first = make_random("tiny")
    assert make_random("tiny") == first
    assert sorted(path.name for path in models.iterdir()) == [".weights.json.lock", "tiny.bin", INDEX]


def test_random_weights_leave_a_real_file_alone(models: Path, register: Register) -> None:
    register(module="bench.scorers.numeracy")
    put(models)
    with pytest.raises(UserError, match="not a random file and is left alone"):
        make_random("tiny")
    assert locate("tiny").sha256 == SHA


def test_real_file_over_a_random_one_counts_as_real(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = dataclasses.replace(WEIGHTS["compbench-objects"], sha256=SHA)
    monkeypatch.setitem(WEIGHTS, entry.id, entry)
    make_random(entry.id)
    put(models, name=entry.file)
    found = locate(entry.id)
    assert (found.sha256, found.random) == (SHA, False)


def test_changed_random_file_without_a_published_hash_is_not_trusted(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = dataclasses.replace(WEIGHTS["compbench-objects"], sha256=None)
    monkeypatch.setitem(WEIGHTS, entry.id, entry)
    random = make_random(entry.id)
    put(models, name=entry.file)
    with pytest.raises(UserError, match=f"was random weights and changed.*{random.sha256}, got {SHA}"):
        locate(entry.id)


def test_copy_of_a_random_file_is_not_taken_for_the_real_one(models: Path, tmp_path: Path) -> None:
    made = make_random("blip-vqa", tmp_path / "rehearsal")
    with pytest.raises(UserError, match="random weights for rehearsals"):
        add("blip-vqa", made.path)
    make_random("blip-vqa")
    with pytest.raises(UserError, match="the random file of 'blip-vqa'"):
        add("blip-vqa", made.path)


# ---- list and check --------------------------------------------------------------------------------------


def test_list_names_every_file_and_what_is_known_of_it(models: Path, register: Register) -> None:
    register()
    put(models)
    locate("tiny")
    make_random("compbench-objects")
    done = run("list")
    assert done.exit_code == 0
    text = re.sub(r"[\s│]+", "", done.stdout)
    for weight in WEIGHTS.values():
        assert weight.id in text and weight.file in text and weight.licence in text
    assert SHA in text and "(unpinned:recorded" in text and "random:" in text and str(models) in text
    assert "11of13aremissing" in text


def test_check_reads_everything_again_and_names_what_is_wrong(models: Path, register: Register) -> None:
    register()
    path = put(models)
    assert run("check").exit_code == 0
    time = path.stat().st_mtime_ns
    put(models, OTHER)
    os.utime(path, ns=(time, time))
    done = run("check")
    assert_one_line(done, SHA, OTHER_SHA)
    assert "tiny: wrong" in done.stdout and "blip-vqa: missing" in done.stdout
    assert_one_line(run("check", "blip-vqa"), "missing weights 'blip-vqa'")


# ---- fetch -----------------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Serves `content` on the loopback; what it does wrong is set by a test."""

    content = CONTENT
    etag = '"one"'
    break_after: int | None = None
    status: int | None = None
    html = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/tiny.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:  # noqa: N802
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if server.status is not None:
            self.send_error(server.status)
            return
        start = 0
        if asked is not None and self.headers.get("If-Range") == server.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "text/html" if server.html else "application/octet-stream")
        self.send_header("Content-Length", str(len(server.content) - start))
        self.send_header("ETag", server.etag)
        self.end_headers()
        self.wfile.write(server.content[start : server.break_after])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(weights, "TIMEOUT_S", 5)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def silent(done: int, total: int | None) -> None:
    pass


def parts(models: Path) -> list[str]:
    return sorted(path.name for path in models.iterdir() if ".part" in path.name)


def test_fetched_file_is_checked_recorded_and_not_fetched_twice(
    models: Path, register: Register, server: Server
) -> None:
    register(url=server.url, sha256=SHA)
    seen: list[tuple[int, int | None]] = []
    located = fetch("tiny", report=lambda done, total: seen.append((done, total)))
    assert located == locate("tiny") and located.sha256 == SHA
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and parts(models) == []
    done = run("fetch", "tiny")
    assert done.exit_code == 0 and SHA in done.stdout
    assert len(server.asked) == 1


def test_broken_download_is_kept_and_continued(models: Path, register: Register, server: Server) -> None:
    register(url=server.url)
    server.break_after = 3000
    assert_one_line(run("fetch", "tiny"), "broke off after 3000", "run the same command to go on")
    with pytest.raises(MissingWeights):
        locate("tiny")
    server.break_after = None
    assert fetch("tiny", report=silent).sha256 == SHA
    assert server.asked == [None, "bytes=3000-"] and parts(models) == []


def test_partial_download_of_another_version_begins_anew(
    models: Path, register: Register, server: Server
) -> None:
    register(url=server.url)
    server.break_after = 3000
    with pytest.raises(UserError):
        fetch("tiny", report=silent)
    server.break_after, server.content, server.etag = None, OTHER, '"two"'
    assert fetch("tiny", report=silent).sha256 == OTHER_SHA


def test_download_killed_before_its_check_is_not_fetched_again(
    models: Path, register: Register, server: Server
) -> None:
    register(url=server.url, sha256=SHA)
    put(models, name=".tiny.bin.part")
    (models / ".tiny.bin.part.etag").write_text(server.etag)
    assert fetch("tiny", report=silent).sha256 == SHA
    assert parts(models) == []


def test_fetched_file_of_the_wrong_hash_is_removed(models: Path, register: Register, server: Server) -> None:
    register(url=server.url, sha256=SHA)
    server.content = OTHER
    assert_one_line(run("fetch", "tiny"), SHA, OTHER_SHA)
    assert parts(models) == [] and not (models / "tiny.bin").exists()


@pytest.mark.parametrize("status", [403, 404])
def test_refusing_server_is_one_line_with_the_way_on(
    models: Path, register: Register, server: Server, status: int
) -> None:
    register(url=server.url)
    server.status = status
    assert_one_line(run("fetch", "tiny"), f"answered {status} ", server.url, "weights add tiny FILE")


def test_web_page_in_the_place_of_a_file_is_refused(models: Path, register: Register, server: Server) -> None:
    register(url=server.url)
    server.html = True
    assert_one_line(run("fetch", "tiny"), "a web page instead of the file", "weights add tiny FILE")
    assert parts(models) == []


def test_no_network_is_one_line_and_the_other_files_are_fetched(
    models: Path, register: Register, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(url=server.url)
    away = dataclasses.replace(WEIGHTS["tiny"], id="away", file="away.bin", url="http://127.0.0.1:1/away")
    monkeypatch.setitem(WEIGHTS, "away", away)
    done = run("fetch", "away", "tiny")
    assert_one_line(done, "no connection to 127.0.0.1:1", "weights add away FILE")
    assert SHA in done.stdout and locate("tiny").sha256 == SHA


def test_fetch_takes_ids_or_all_and_not_both(models: Path) -> None:
    assert_one_line(run("fetch"), "say which weights to fetch, or --all")
    assert_one_line(run("fetch", "--all", "bert-vocab"), "not both")
    assert_one_line(run("fetch", "bert"), "unknown weights 'bert'")


def test_random_file_is_replaced_by_a_fetched_one(
    models: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = dataclasses.replace(WEIGHTS["compbench-objects"], url=server.url, sha256=SHA)
    monkeypatch.setitem(WEIGHTS, entry.id, entry)
    monkeypatch.setattr("bench.scorers.numeracy.check_keys", None, raising=False)
    make_random(entry.id)
    found = fetch(entry.id, report=silent)
    assert (found.sha256, found.random) == (SHA, False)
