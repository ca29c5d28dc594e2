"""What the server answers, asked without a socket."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iccld.cli import main
from iccld.errors import ConfigError
from iccld.serve import server
from iccld.serve.answers import run_lengths
from iccld.serve.guard import HEADERS, Hosts, host_name
from iccld.serve.limits import Limits
from iccld.serve.server import address_of, is_loopback, open_socket

from .conftest import Reply, Server, picture

Get = Callable[..., Reply]


def test_segment_answers_a_palette_png_of_the_pictures_size(get: Get) -> None:
    reply = get("/segment", picture(9))
    assert (reply.status, reply.headers["content-type"]) == (200, "image/png")
    mask = reply.picture
    assert mask.mode == "P"
    assert np.array_equal(np.asarray(mask), np.full((24, 32), 9))
    assert mask.getpalette()[:3] == [128, 64, 128]  # road


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "image/png"),
        ("*/*", "image/png"),
        ("application/json", "application/json"),
        ("image/jpeg", "image/jpeg"),
        ("text/html, application/json;q=0.5, image/png;q=0.9", "image/png"),
        ("image/*;q=0.2, application/*;q=0.3", "application/json"),
    ],
)
def test_segment_gives_what_is_accepted(get: Get, accept: str, expected: str) -> None:
    assert get("/segment", picture(), {"accept": accept}).headers["content-type"] == expected


def test_segment_refuses_types_and_parameters_that_there_are_not(get: Get) -> None:
    assert get("/segment", picture(), {"accept": "text/html"}).status == 406
    for query in ("format=gif", "size=3", "format=png&format=json", "mask=rle&format=png", "confidence=png"):
        reply = get(f"/segment?{query}", picture())
        assert reply.status == 400, query
        assert "error" in reply.json


def test_format_wins_over_accept(get: Get) -> None:
    assert get("/segment?format=overlay", picture(), {"accept": "application/json"}).headers["content-type"] == "image/jpeg"


def test_json_tells_shares_and_confidence_of_what_occurs(get: Get) -> None:
    halves = np.zeros((10, 20, 3), dtype=np.uint8)
    halves[:, 5:] = 255
    data = io.BytesIO()
    Image.fromarray(halves).save(data, format="PNG")
    told = get("/segment?format=json&confidence=png&picture=jpeg", data.getvalue()).json
    assert told["size"] == [10, 20]
    assert [(entry["name"], entry["share"]) for entry in told["classes"]] == [("bicycle", 0.75), ("road", 0.25)]
    assert all(0.9 < entry["confidence"] <= 1 for entry in told["classes"])
    mask, sure, shown = (Image.open(io.BytesIO(base64.b64decode(told[key]))) for key in ("mask", "confidence_map", "picture"))
    assert (mask.mode, sure.mode, shown.format) == ("P", "L", "JPEG")
    assert np.array_equal(np.asarray(mask) == 18, halves[..., 0] == 255)
    assert np.asarray(sure).min() > 229


def test_json_masks_are_grey_ids_or_run_lengths_or_left_out(get: Get) -> None:
    grey = Image.open(io.BytesIO(base64.b64decode(get("/segment?format=json&mask=grey", picture(4)).json["mask"])))
    assert (grey.mode, set(np.asarray(grey).ravel())) == ("L", {4})
    (entry,) = get("/segment?format=json&mask=rle", picture(4)).json["classes"]
    assert entry["rle"] == {"size": [24, 32], "counts": [0, 24 * 32]}
    assert "mask" not in get("/segment?format=json&mask=none", picture(4)).json


def test_run_lengths_are_cocos() -> None:
    mask_api = pytest.importorskip("pycocotools.mask")
    generator = np.random.default_rng(0)
    for shape in ((1, 1), (3, 5), (7, 2)):
        for _ in range(20):
            mask = generator.random(shape) < 0.5
            runs = run_lengths(mask)
            compressed = mask_api.frPyObjects({"size": list(shape), "counts": runs}, *shape)
            assert np.array_equal(mask_api.decode(compressed), mask)


def test_a_form_with_one_file_is_a_picture(get: Get) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x.png"\r\n\r\n' + picture(7) + b"\r\n--b--\r\n"
    reply = get("/segment", body, {"content-type": "multipart/form-data; boundary=b"})
    assert set(np.asarray(reply.picture).ravel()) == {7}


def test_exif_turns_the_answer_too(get: Get) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert get("/segment", picture(3, (24, 32), "JPEG", exif=exif)).picture.size == (24, 32)


def test_info_names_the_run_and_no_path(get: Get, tmp_path: Path) -> None:
    told = get("/info")
    assert told.json["run"] == "some-run"
    assert [entry["name"] for entry in told.json["classes"]][:2] == ["road", "sidewalk"]
    assert str(tmp_path) not in told.body.decode()


def test_metrics_count_answers_pictures_and_phases(get: Get) -> None:
    get("/segment", picture())
    get("/segment", b"nonsense")
    text = get("/metrics").body.decode()
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert samples['iccld_answers_total{status="200"}'] == "1"
    assert samples['iccld_answers_total{status="415"}'] == "1"
    assert (samples["iccld_pictures_total"], samples["iccld_pixels_total"], samples["iccld_queue"]) == ("1", "768", "0")
    assert samples['iccld_seconds_bucket{phase="predict",le="+Inf"}'] == samples['iccld_seconds_count{phase="predict"}'] == "1"
    assert int(samples["process_resident_memory_bytes"]) > 1e6
    assert all(re.fullmatch(r'[a-z_]+(\{[a-z]+="[^"]+"(,le="[^"]+")?\})? [\d.]+', line) for line in text.splitlines() if line[0] != "#")


def test_prometheus_own_parser_reads_the_metrics(get: Get) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    get("/segment", picture())
    families = {family.name: family for family in parser.text_string_to_metric_families(get("/metrics").body.decode())}
    assert families["iccld_seconds"].type == "histogram"
    assert families["iccld_pictures"].type == "counter"
    (pictures,) = families["iccld_pictures"].samples
    assert pictures.value == 1
    (answers,) = [each for each in families["iccld_answers"].samples if each.labels == {"status": "200"}]
    assert answers.value == 1


def test_curl_is_answered(started: Callable[..., Server], tmp_path: Path) -> None:
    """The commands of docs/serve.md, by a client that is not Python: the picture as the body, and as the file of a form."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("needs curl")
    url, street = started(Limits()).url, tmp_path / "street.png"
    street.write_bytes(picture(9))
    for given in (["--data-binary", f"@{street}"], ["-F", f"picture=@{street}"]):
        command = [curl, "--silent", "--show-error", "--noproxy", "*", *given, f"{url}/segment", "--output", str(tmp_path / "mask.png")]
        subprocess.run(command, check=True, timeout=60)
        with Image.open(tmp_path / "mask.png") as mask:
            assert np.array_equal(np.asarray(mask), np.full((24, 32), 9))


def test_every_answer_carries_the_headers_that_protect_a_browser(get: Get) -> None:
    refused = (get("/nowhere"), get("/segment", b""), get("/", headers={"host": "x.y"}))
    for reply in (get("/"), get("/info"), get("/segment", picture()), *refused):
        assert {name: reply.headers[name] for name in HEADERS} == HEADERS
        assert not any(name.startswith("access-control") for name in reply.headers)


def test_the_page_loads_nothing_from_elsewhere(get: Get) -> None:
    page = get("/").body.decode()
    assert set(re.findall(r'(?:src|href)="([^"]+)"', page)) == {"data:,", "page.css", "page.js"}
    assert get("/page.css").headers["content-type"].startswith("text/css")
    assert get("/page.js").headers["content-type"].startswith("text/javascript")
    for name in ("page.html", "page.css", "page.js"):
        text = resources.files("iccld.serve").joinpath("page", name).read_text(encoding="utf-8")
        assert not re.search(r"https?://|//cdn|@import|innerHTML|eval\(", text), name


def test_other_paths_and_methods_are_told_in_json(get: Get) -> None:
    assert (get("/nowhere").status, get("/segment").status, get("/", method="DELETE").status) == (404, 405, 405)
    assert get("/nowhere").json["error"]


@pytest.mark.parametrize(
    ("host", "name"),
    [("localhost:8000", "localhost"), ("[::1]:80", "::1"), ("127.0.0.1", "127.0.0.1"), ("a:b", ""), ("[::1", ""), ("x]:1", ""), ("", "")],
)
def test_host_names_are_taken_apart(host: str, name: str) -> None:
    assert host_name(host) == name


def test_hosts_beyond_loopback_are_addresses_and_known_names() -> None:
    hosts = Hosts(False, ["Segment.example"])
    assert all(hosts.allows(host) for host in ("10.0.0.7:8000", "[fe80::1]", "localhost", "segment.example:8000"))
    assert not any(hosts.allows(host) for host in ("evil.example", "segment.example.evil.example", "", "10.0.0.7.evil.example"))


def test_limits_refuse_nonsense() -> None:
    for wrong in ({"queue": 0}, {"megabytes": -1}, {"megapixels": 65}, {"upload_seconds": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Limits(**wrong)


def test_a_taken_port_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    manifest = tmp_path / "checkpoints" / "source" / "1" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    (tmp_path / "config.yaml").write_text("")
    with open_socket("127.0.0.1", 0) as taken:
        taken.listen()
        assert address_of(taken) == f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert is_loopback(taken)
        assert main(["serve", str(tmp_path), "--port", str(taken.getsockname()[1])]) == 2
    assert re.fullmatch(r"error: cannot listen on 127.0.0.1, port \d+: .*; choose another --port\n", capsys.readouterr().err)


def test_an_absent_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(ConfigError, match=r"serving needs uvicorn: pip install 'iccld\[serve\]'"):
        server.require_extra()


def test_serving_a_folder_that_is_no_run_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["serve", str(tmp_path)]) == 4
    assert "is no run" in capsys.readouterr().err
