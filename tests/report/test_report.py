"""The page shows the results in the workdir, is self-contained, and is also written for unfinished runs."""

import html.parser
import io
import json
import os
import zipfile

import numpy as np
import PIL.Image
import pytest

from jaxdog.evaluation import submission
from jaxdog.render import animation
from jaxdog.report import compare, report
from jaxdog.training import writers
from jaxdog.utils import errors, files, plots

HASH = "c8e26eaa68bcf65070283f380d6fc212d21803860f4eaea0e15ad23b89287e70"
SCORE = {
    "kimg": 0.64, "samples": 2000, "real": 18547, "fid768": 1.25, "fid2048_approx": 60.5,
    "mifid_approx": 60.5, "memorization_distance": 0.21, "weights_sha256": HASH, "weights_kind": "fitted",
    "resampler": "lanczos", "sampling": {"truncation": 0.5, "method": "resample"}, "final": False,
}  # fmt: skip
VOID = {"meta", "img", "br", "path", "use", "rect"}


class Page(html.parser.HTMLParser):
    """Checks that tags balance; keeps text, headings, attributes and table rows."""

    def __init__(self, path):
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.rows: list[list[str]] = []
        self.headings: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
        if "h2" in self.open:
            self.headings.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.found if name == tag]


EXTRA = {
    "kid": 0.0625,
    "warnings": ["KID is made of few"],
    "leaderboard": {"rank": 7, "text": "place 7 of 1,666 & more"},
    "copies": {
        "verdict": "copies",
        "reasons": ["30 of 100"],
        "copied_share": 0.3,
        "copied_share_of_real": 0.0125,
    },
    "per_class": {"pug": {"fid2048": 80.5}, "boxer": {"fid2048": None}, "collie": {"fid2048": 70.25}},
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "big & gan"
    images = np.random.default_rng(0).integers(0, 256, (110, 64, 64, 3), dtype=np.uint8)
    with writers.Writer(folder) as writer:
        for step in range(10, 101, 10):
            numbers = {"kimg": step * 0.032, "seconds": step * 36.0, "images_per_second": 50.0 + step}
            writer.log(step, {**numbers, "loss/d": 1.0, "loss/g": 2.0, "grad_norm/d": 0.5})
            writer.image("grid", step, plots.grid(images[:8], 4))
        writer.scores(20, SCORE)
        writer.scores(40, {**SCORE, "kimg": 1.28, "fid768": 1.0})
        writer.scores(80, {**SCORE, "kimg": 2.56, "fid768": 1.125})
        writer.scores(
            40, {**SCORE, "kimg": 1.28, "samples": 10_000, "fid768": 0.9375, "final": True, **EXTRA}
        )
        writer.image("final", 40, plots.grid(images[:8], 4))
        writer.image("copies", 40, plots.grid(images[:4], 4))
    (folder / "config.json").write_text(json.dumps({"name": "<script>alert(1)</script>", "seed": 7}))
    submission.write_zip(folder / "images.zip", [images], count=110)
    return folder


@pytest.fixture(scope="module")
def page(workdir) -> Page:
    path = report.write(workdir)
    assert path == workdir / "report.html" and not list(workdir.glob(".*"))
    return Page(path)


def test_the_page_is_self_contained(page):
    sources = [image["src"] for image in page.all("img")]
    assert sources and all(source.startswith("data:image/") for source in sources)
    assert not page.all("script") and not page.all("link") and not page.all("iframe")
    assert "url(http" not in page.source and "@import" not in page.source


def test_ids_are_unique(page):
    ids = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert ids and len(ids) == len(set(ids))


def test_the_summary_is_the_final_score_and_the_whole_run(page):
    assert "fid768 0.9375 final, step 40, 10,000 samples" in page.text
    assert "steps 100" in page.text and "training time 1.00 h" in page.text
    assert "images/s 105.0 median" in page.text


def test_the_table_has_every_evaluation_with_its_facts(page):
    head, *rows = page.rows[:5]
    assert head[:7] == ["step", "kimg", "samples", "real", "fid2048_approx", "fid768", "mifid_approx"]
    assert [row[0] for row in rows] == ["20", "40", "40", "80"]
    assert rows[2] == [
        "40", "1.280", "10,000", "18,547", "60.50", "0.9375", "60.50", "0.2100",
        f"fitted {HASH[:12]}", "lanczos", "truncation 0.5, method resample",
    ]  # fmt: skip
    assert {"title": HASH} in page.all("code")
    assert [attributes.get("class") for attributes in page.all("tr")[:5]] == [None, None, None, "final", None]


def test_the_page_says_that_kernels_were_fitted(page):
    assert "some kernels were fitted" in page.text and "not with FID" not in page.text


def test_a_run_scored_after_its_last_log_line_shows_that_step(tmp_path):
    log = [{"step": 200, "kimg": 6.4, "seconds": 360.0, "images_per_second": 50.0}]
    cards = report.progress_cards(log, [{"step": 270, "kimg": 8.64}])
    assert [card["value"] for card in cards[:3]] == ["270", "8.640", "0.10 h"]
    plots_folder = tmp_path / "grids"
    plots_folder.mkdir()
    (plots_folder / "final_00000270.png").touch()
    assert report.find_grids(tmp_path, [*log, {"step": 270, "kimg": 8.64}])[0].caption == (
        "final, step 270, 8.640 kimg"
    )


def test_curves_grids_zip_and_config_are_there(page, workdir):
    captions = [
        "fid2048_approx",
        "fid768",
        "mifid_approx",
        "memorization_distance",
        "loss",
        "grad_norm",
        "images/s",
    ]
    assert [svg["aria-label"] for svg in page.all("svg")] == [
        f"{name} over kimg" for name in [*captions[:-1], "images_per_second"]
    ]
    assert page.headings == [
        "Final grid",
        "Curves",
        "Scores",
        "Submitted images",
        "Over time: grid",
        "Submission",
        "Configuration",
    ]
    assert "final, step 40, 1.280 kimg" in page.text
    series = [image["alt"] for image in page.all("img") if image["alt"].startswith("grid, step")]
    assert len(series) == report.MAX_GRIDS
    assert series[0].startswith("grid, step 10,") and series[-1].startswith("grid, step 100,")
    assert (
        "images.zip: 110 images" in page.text
        and submission.check_zip(workdir / "images.zip", 110).sha256 in page.text
    )
    assert '"seed": 7' in page.text and "<script>alert(1)</script>" in page.text  # as text, see above
    assert "big & gan" in page.text


def test_the_final_grid_is_the_file_as_it_is(page, workdir):
    assert report.file_uri(workdir / "grids" / "final_00000040.png") == page.all("img")[0]["src"]


def test_a_random_network_has_a_note(tmp_path):
    with writers.Writer(tmp_path) as writer:
        writer.scores(
            1, {"kimg": 1.0, "samples": 16, "random_fid768": 3.0, "random_fid2048": 2.0, "random_mifid": 2.0}
        )
    page = Page(report.write(tmp_path))
    assert "but not with FID" in page.text and "fitted" not in page.text
    assert "random_fid2048 2.000 best so far, step 1, 16 samples" in page.text


def test_before_the_end_the_best_score_is_the_headline(tmp_path):
    with writers.Writer(tmp_path) as writer:
        for step, score in ((1, 3.0), (2, 1.5), (3, 2.0)):
            writer.scores(step, {"kimg": step, "samples": 16, "fid768": score})
    assert "fid768 1.500 best so far, step 2, 16 samples" in Page(report.write(tmp_path)).text


def test_published_weights_need_no_note(tmp_path):
    with writers.Writer(tmp_path) as writer:
        writer.scores(1, {"kimg": 1.0, "samples": 10_000, "fid768": 3.0, "fid2048": 2.0, "mifid": 2.0})
    assert not [a for a in Page(report.write(tmp_path)).all("p") if a.get("class") == "note"]


def test_an_empty_folder_has_a_report(tmp_path):
    page = Page(report.write(tmp_path))
    assert "Nothing has been logged yet" in page.text and page.headings == []


def test_a_run_that_has_just_started_has_a_report(tmp_path):
    (tmp_path / "log.jsonl").write_text(
        '{"step": 1, "kimg": 0.1, "loss/d": null, "seconds": 3.0}\n{"step": 2, "ki'
    )
    with writers.Writer(tmp_path, step=None) as writer:
        writer.image("grid", 1, np.zeros((64, 64, 3), np.uint8))
    page = Page(report.write(tmp_path))
    assert page.headings == ["Final grid"] and "training time 3 s" in page.text


def test_scores_that_are_not_numbers_are_dashes(tmp_path):
    with writers.Writer(tmp_path) as writer:
        writer.scores(1, {"kimg": 1.0, "samples": 16, "fid768": float("nan")})
    assert Page(report.write(tmp_path)).rows[1][4] == "–"


def test_a_repeated_evaluation_is_shown_once():
    again = {**SCORE, "step": 5, "fid768": 2.0}
    assert report.drop_repeated([{**SCORE, "step": 5}, again, {**again, "samples": 50}]) == [
        {**again, "samples": 50},
        again,
    ]


def test_images_of_the_run_have_sections(tmp_path):
    folder = tmp_path / report.MEDIA
    folder.mkdir()
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    animation.write(folder / report.INTERPOLATION, frames)
    PIL.Image.fromarray(frames[0]).save(folder / report.CLASSES)
    PIL.Image.fromarray(frames[0]).save(folder / "other.png")
    page = Page(report.write(tmp_path))
    assert page.headings == ["Classes", "Interpolation"]
    sources = [image["src"] for image in page.all("img")]
    assert sources == [
        report.jpeg_uri(folder / report.CLASSES),
        report.file_uri(folder / report.INTERPOLATION),
    ]
    assert sources[1].startswith("data:image/gif;base64,")


def test_images_that_cannot_be_read_are_left_out_with_a_note(tmp_path, monkeypatch):
    """Cut off, or larger than any image of a run."""
    (tmp_path / report.MEDIA).mkdir()
    with writers.Writer(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.image("grid", step, np.full((64, 64, 3), step, np.uint8))
        writer.image("final", 3, np.zeros((64, 64, 3), np.uint8))
    grids = tmp_path / writers.GRIDS
    (grids / "grid_00000002.png").write_bytes(b"\x89PNG")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    PIL.Image.fromarray(noise).save(grids / "final_00000003.png")
    (tmp_path / report.MEDIA / report.INTERPOLATION).write_bytes(bytes(5001))
    (tmp_path / report.MEDIA / report.CLASSES).write_bytes(b"torn")
    monkeypatch.setattr(files, "MAX_IMAGE_BYTES", 5000)
    page = Page(report.write(tmp_path))
    assert page.headings == ["Over time: grid"] and len(page.all("img")) == 2
    for name in ("grid_00000002.png", "final_00000003.png", report.INTERPOLATION, report.CLASSES):
        assert f"{name} is left out: " in page.text
    assert "is larger than 5,000 bytes" in page.text and "is damaged (UnidentifiedImageError" in page.text


def test_the_number_of_series_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MAX_SERIES", 2)
    with writers.Writer(tmp_path) as writer:
        for step in (1, 2):
            for name in "abc":
                writer.image(name, step, np.zeros((8, 8, 3), np.uint8))
    page = Page(report.write(tmp_path))
    assert page.headings == ["Final grid", "Over time: a", "Over time: b"]
    assert "Grids of 3 names were found; those of the first 2 are shown." in page.text


@pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="names must be UTF-8 there")
def test_names_of_runs_need_not_be_utf8(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "scores.jsonl").write_text(json.dumps({"step": 1, **SCORE, "final": True}) + "\n")
    for path in (report.write(folder), compare.write([folder], tmp_path / "c.html")):
        assert r"caf\udce9" in Page(path).text
    assert r"caf\udce9" in compare.table([folder])


def test_a_damaged_zip_is_reported_not_fatal(tmp_path):
    (tmp_path / "images.zip").write_bytes(b"half a zip")
    assert "images.zip cannot be read" in Page(report.write(tmp_path)).text
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("00000.png", b"not an image")
    assert "images.zip cannot be read" in Page(report.write(tmp_path)).text


def test_a_malicious_images_zip_is_an_error_on_the_page(tmp_path):
    def page(name: str, data: bytes) -> str:
        with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, data)
        return Page(report.write(tmp_path)).text

    def encoded(size: tuple[int, int], form: str) -> bytes:
        buffer = io.BytesIO()
        PIL.Image.new("RGB", size).save(buffer, form)
        return buffer.getvalue()

    assert "images.zip cannot be read: UnidentifiedImageError: it is not" in page(
        "a.png", encoded((9, 9), "EPS")
    )
    assert "it has 2100 x 2000 pixels, the limit is 4,194,304" in page("a.png", encoded((2000, 2100), "PNG"))
    assert "images.zip cannot be read: it would extract to" in page("a.png", bytes(64 << 20))
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:  # not compressed
        archive.writestr("a.png", bytes(33 << 20))
    assert "it would extract to 34,603,008 bytes, 1 times its size" in Page(report.write(tmp_path)).text
    assert "cannot be read" not in page("a.png", encoded((9, 9), "PNG"))


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist; the report needs the workdir"):
        report.write(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (12345, "12,345"),
        (1234.5, "1,234"),
        (123.45, "123.5"),
        (12.345, "12.35"),
        (0.12345, "0.1235"),
    ],
)
def test_numbers_are_short(value, text):
    assert report.format_number(value) == text


def test_the_submitted_images_have_every_score_and_each_class_best_first(page):
    assert "kid 0.0625" in page.text and "KID is made of few" in page.text
    assert "Place 7 of 1,666 & more." in page.text
    assert "Copies. 30 of 100. 30.00 % of the images" in page.text and "photos, 1.250 % resemble" in page.text
    assert "Copies" in [image.get("alt") for image in page.all("img")]
    assert "Over time: copies" not in page.headings
    classes = page.text[page.text.index("Each class alone") :]
    assert "collie 70.25 pug 80.50 boxer –" in classes


def test_sampling_options_are_shown_best_first(tmp_path):
    rows = [
        {"setting": {"truncation": t, "ema_index": k}, "samples": 5000, "fid2048": fid}
        for t, k, fid in ((0.0, 0, 31.5), (0.0, 1, 29.25), (1.0, 0, 30.75))
    ]
    table = {"step": 4000, "metric": "fid2048", "best": rows[1]["setting"], "options": rows}
    (tmp_path / writers.SWEEP).write_text(json.dumps(table))
    page = Page(report.write(tmp_path))
    assert "Sampling options" in page.headings and "Compared on step 4,000, with 5,000 images" in page.text
    at = page.rows.index(["truncation", "ema_index", "fid2048"])
    assert page.rows[at + 1 : at + 4] == [
        ["0.0000", "1", "29.25"],
        ["1.000", "0", "30.75"],
        ["0.0000", "0", "31.50"],
    ]


# ------------------------------------------------------------------ folders of strangers


@pytest.mark.parametrize("name", ["config.json", "log.jsonl", "scores.jsonl", "sweep.json", "images.zip"])
def test_links_out_of_the_folder_are_left_out(name, tmp_path, caplog):
    secret, run = tmp_path / "secret", tmp_path / "run"
    run.mkdir()
    text = {"config.json": '{"a": "my secret"}', "images.zip": "my secret"}
    secret.write_text(text.get(name, '{"step": 1, "loss/my secret": 1.0, "fid my secret": 2.0}'))
    (run / name).symlink_to(secret)
    assert "my secret" not in report.write(run).read_text()
    assert f"{name} is left out: it is a link to a file outside of" in caplog.text
    with pytest.raises(errors.UserError, match="is not the folder of a run"):
        compare.load([run])


@pytest.mark.parametrize("name", ["grids/grid_1.png", "grids/copies_1.png", "media/classes.png"])
def test_images_that_are_links_out_of_the_folder_are_left_out(name, tmp_path):
    (tmp_path / "run" / "grids").mkdir(parents=True)
    (tmp_path / "run" / "media").mkdir()
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "mine.png")
    (tmp_path / "run" / name).symlink_to(tmp_path / "mine.png")
    assert not Page(report.write(tmp_path / "run")).all("img")


def test_a_folder_whose_grids_link_to_a_place_outside_is_left_out(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "mine").mkdir()
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "mine" / "grid_1.png")
    (tmp_path / "run" / "grids").symlink_to(tmp_path / "mine")
    assert not Page(report.write(tmp_path / "run")).all("img")
    (tmp_path / "link").symlink_to(tmp_path / "mine2")
    (tmp_path / "mine2" / "grids").mkdir(parents=True)
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "mine2" / "grids" / "grid_1.png")
    assert Page(report.write(tmp_path / "link")).all("img")  # the folder itself may be a link


MARKUP = "<img src=x onerror=alert(1)>$a_$&\"'"


def test_names_from_files_are_text(tmp_path):
    """Of classes, metrics, losses, configs and runs, on both pages."""
    folder = tmp_path / "<b>run"
    scores = {**SCORE, f"fid{MARKUP}": 3.0, "final": True, **EXTRA}
    scores |= {"per_class": {MARKUP: {f"fid{MARKUP}": 2.0}}, "warnings": [MARKUP], "resampler": MARKUP}
    with writers.Writer(folder) as writer:
        writer.log(1, {"kimg": 1.0, f"loss/{MARKUP}": 1.0, "loss/b": 2.0})
        writer.scores(1, scores)
        writer.scores(1, {**scores, "final": False})
    (folder / "config.json").write_text(json.dumps({"name": MARKUP, "seed": MARKUP, "system": {"a": MARKUP}}))
    for path in (report.write(folder), compare.write([folder], tmp_path / "compare.html")):
        page = Page(path)
        assert not page.all("b") or "card" in page.source
        assert all(image["src"].startswith("data:") for image in page.all("img"))
        assert "onerror" not in {name for _, attributes in page.found for name in attributes}
        assert MARKUP in page.text
        policy = [tag["content"] for tag in page.all("meta") if "http-equiv" in tag]
        assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


CONFIGS = {
    "word": '{"system": "gan"}',
    "list": '{"system": {"name": []}}',
    "no object": "[1]",
    "deep": "[" * 200_000,
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_config_that_is_none_ends_in_one_paragraph(config, tmp_path):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(errors.UserError) as error:
        report.write(tmp_path)
    assert "\n" not in str(error.value)


FINAL = {"step": 8, "kimg": 1.0, "samples": 10, "random_mifid": 3.0, "final": True}
OTHERS = {
    "verdict alone": (writers.SCORES, {**FINAL, "copies": {"verdict": "x"}}),
    "copies as text": (writers.SCORES, {**FINAL, "copies": "x"}),
    "a class without scores": (writers.SCORES, {**FINAL, "per_class": {"a": {}}}),
    "classes with other scores": (writers.SCORES, {**FINAL, "per_class": {"a": {"x": 1}, "b": {"y": 2}}}),
    "no options": (writers.SWEEP, {"step": 8, "metric": "fid768", "best": {}, "options": []}),
    "options of another kind": (writers.SWEEP, {"step": 8, "metric": "fid768", "best": {}, "options": [3]}),
}


@pytest.mark.parametrize(("name", "content"), OTHERS.values(), ids=OTHERS)
def test_values_that_no_run_has_end_in_one_paragraph(name, content, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_text(json.dumps(content) + "\n")
    with pytest.raises(errors.UserError, match="has files that are not those of a run") as error:
        report.write(tmp_path)
    assert "\n" not in str(error.value)


def test_a_run_without_a_log_line_says_so(tmp_path, page):
    (tmp_path / "config.json").write_text("{}")
    assert "stopped before its first log line" in Page(report.write(tmp_path)).text
    assert "stopped before its first log line" not in page.text


def test_random_weights_come_with_a_note(tmp_path):
    with writers.Writer(tmp_path) as writer:
        writer.scores(1, {"kimg": 1.0, "samples": 10, "random_mifid": 3.0, "memorization_distance": 0.01})
    (tmp_path / "config.json").write_text("{}")
    for path in (report.write(tmp_path), compare.write([tmp_path], tmp_path / "compare.html")):
        assert "Its memorization distance says nothing about copies" in Page(path).text
