import errno
import hashlib
import importlib
import io
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from sgbench.core.download import download
from sgbench.core.errors import InputError, MissingDataError
from sgbench.data import CATALOG, fetch, resolve
from sgbench.data.fetch import download_size, fetch_missing

module = importlib.import_module("sgbench.data.fetch")

BENCHMARK = {
    f"benchmark/{name}/{folder}": count
    for name, count in (("Set5", 5), ("Set14", 14), ("B100", 100))
    for folder in ("HR", "LR_bicubic/X2", "LR_bicubic/X3", "LR_bicubic/X4")
}
BSDS500 = {f"BSR/BSDS500/data/images/{part}": count for part, count in (("train", 200), ("val", 100), ("test", 200))}


def files(folders):
    """Return the content of small files, so many in each folder, under names that no other has."""
    return {f"{folder}/{Path(folder).name}-{i}.png": b"pixels" for folder, n in folders.items() for i in range(n)}


def tar(path, content, mode="w", extra=()):
    with tarfile.open(path, mode) as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in extra:
            archive.addfile(info)


def zipped(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("SGBENCH_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def asked(monkeypatch):
    """The names of the files that are downloaded."""
    names = []

    def counted(url, target, **options):
        names.append(target.name)
        download(url, target, **options)

    monkeypatch.setattr(module, "download", counted)
    return names


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Puts an archive made here in the place of those on the network with the same name; others cannot be reached."""
    server = tmp_path / "server"
    server.mkdir()

    def publish():
        catalog = {}
        for name, entry in CATALOG.items():
            archives = []
            for archive in entry.archives:
                file = server / archive.url.rpartition("/")[2]
                digest = hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else "of nothing"
                archives.append(replace(archive, url=file.as_uri(), digest=f"sha256:{digest}"))
            catalog[name] = replace(entry, archives=tuple(archives))
        monkeypatch.setattr(module, "CATALOG", catalog)

    def serve(name, write, *arguments, **options):
        write(server / name, *arguments, **options)
        publish()
        return server / name

    publish()
    return serve


@pytest.fixture
def benchmark(serve):
    return serve("benchmark.tar", tar, files(BENCHMARK))


def outcomes(names, **options):
    return [each.outcome for each in fetch(names, **options)]


# What is fetched


def test_sets_that_share_an_archive_download_it_once(root, benchmark, asked):
    fetched = fetch(["Set5", "Set14", "Set5"])
    assert [(each.name, each.outcome, each.folder, each.remark) for each in fetched] == [
        ("Set5", "fetched", root / "Set5", ""),
        ("Set14", "fetched", root / "Set14", ""),
    ]
    assert asked == ["benchmark.tar"]
    assert [path.name for path in sorted(root.iterdir())] == ["Set14", "Set5"]
    assert len(tree(root)) == 4 * (5 + 14)
    assert (root / "Set5" / "HR" / "HR-0.png").read_bytes() == b"pixels"


def test_what_is_here_is_not_fetched_again(root, benchmark, asked):
    fetch(["Set5"])
    assert outcomes(["Set5"]) == ["here"]
    assert outcomes(["Set5"], lr_scale=3) == ["here"]
    assert outcomes(["Set5", "Set14"]) == ["here", "fetched"]
    assert asked == ["benchmark.tar"] * 2


def test_what_is_fetched_is_found_by_name(tmp_path, serve, monkeypatch):
    monkeypatch.delenv("SGBENCH_DATA", raising=False)
    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path / "cache"))
    content = {
        f"benchmark/Set5/{folder}/{name}{suffix}.png": b""
        for folder, suffix in (("HR", ""), ("LR_bicubic/X2", "x2"), ("LR_bicubic/X3", "x3"), ("LR_bicubic/X4", "x4"))
        for name in ("baby", "bird", "butterfly", "head", "woman")
    }
    serve("benchmark.tar", tar, content)
    fetch(["Set5"])
    source = resolve("Set5,lr", "test", 3)
    assert source.images[0] == tmp_path / "cache" / "sets" / "Set5" / "HR" / "baby.png"
    assert source.lr[4] == tmp_path / "cache" / "sets" / "Set5" / "LR_bicubic" / "X3" / "womanx3.png"


def test_low_resolution_files_in_archives_of_their_own_come_when_asked_for(root, serve, asked):
    serve("DIV2K_train_HR.zip", zipped, files({"DIV2K_train_HR": 800}))
    serve("DIV2K_valid_HR.zip", zipped, files({"DIV2K_valid_HR": 100}))
    serve("DIV2K_train_LR_bicubic_X4.zip", zipped, files({"DIV2K_train_LR_bicubic/X4": 800}))
    serve("DIV2K_valid_LR_bicubic_X4.zip", zipped, files({"DIV2K_valid_LR_bicubic/X4": 100}))
    assert outcomes(["DIV2K"]) == ["fetched"]
    assert asked == ["DIV2K_train_HR.zip", "DIV2K_valid_HR.zip"]
    assert outcomes(["DIV2K"], lr_scale=4) == ["fetched"]
    assert asked[2:] == ["DIV2K_train_LR_bicubic_X4.zip", "DIV2K_valid_LR_bicubic_X4.zip"]
    assert len(resolve("DIV2K", "train").images) == 800
    assert len(tree(root / "DIV2K")) == 1800


def test_parts_of_an_archive_can_be_one_folder_and_nothing_else_is_unpacked(root, serve):
    others = {
        "BSR/BSDS500/data/images/train/Thumbs.db": b"",
        "BSR/BSDS500/data/images/train/._1.jpg": b"",
        "BSR/BSDS500/data/images/more/1.jpg": b"",
        "BSR/BSDS500/data/groundTruth/train/1.mat": b"",
        "BSR/BSDS500/data/images/1.jpg": b"",
    }
    serve("BSR_bsds500.tgz", tar, files(BSDS500) | others, mode="w:gz")
    assert outcomes(["BSDS500"]) == ["fetched"]
    assert [path.name for path in root.iterdir()] == ["BSDS500"]
    assert len(tree(root)) == len(list((root / "BSDS500" / "HR").iterdir())) == 500


def test_images_directly_in_the_folder_of_a_set_are_here(root, benchmark, asked):
    (root / "Set5").mkdir(parents=True)
    for i in range(5):
        (root / "Set5" / f"{i}.png").touch()
    assert outcomes(["Set5"]) == ["here"]
    assert asked == []
    assert outcomes(["Set5"], lr_scale=4) == ["fetched"]
    assert sorted(path.name for path in (root / "Set5").iterdir() if path.is_dir()) == ["LR_bicubic"]


def test_what_is_given_out_on_request_says_how_to_get_it(root):
    (fetched,) = fetch(["Manga109"])
    assert fetched.outcome == "by hand"
    assert fetched.remark == (
        "Manga109 must be got by hand (http://www.manga109.org/en/): "
        f"Request it from its authors, and put one page of each volume into '{root}/Manga109'."
    )
    fetched.folder.mkdir()
    for i in range(109):
        (fetched.folder / f"{i}.png").touch()
    assert outcomes(["Manga109", "demo"]) == ["here", "here"]


def test_progress_is_told_by_archive(root, benchmark):
    seen = []
    fetch(["Set5"], progress=lambda *told: seen.append(told))
    assert seen[-1] == ("benchmark.tar", benchmark.stat().st_size, benchmark.stat().st_size)


# What goes wrong


@pytest.mark.parametrize(
    ("name", "lr_scale", "sentence"),
    [
        ("Set6", None, r"unknown data set 'Set6': did you mean 'Set5'\?"),
        ("Set5=/data", None, "unknown data set 'Set5=/data'"),
        ("BSDS500", 4, "BSDS500 ships no low-resolution files; fetch it without --lr"),
    ],
)
def test_what_cannot_be_fetched_is_refused_before_anything_is(root, asked, name, lr_scale, sentence):
    with pytest.raises(InputError, match=sentence):
        fetch(["Set5", name], lr_scale=lr_scale)
    assert asked == []
    assert not root.exists()


def test_what_cannot_be_downloaded_does_not_keep_the_others(root, serve, asked):
    serve("DIV2K_train_HR.zip", zipped, files({"DIV2K_train_HR": 800}))
    serve("BSR_bsds500.tgz", tar, files(BSDS500), mode="w:gz")
    div2k, bsds, urban = fetch(["DIV2K", "BSDS500", "Urban100"])
    assert [each.outcome for each in (div2k, bsds, urban)] == ["failed", "fetched", "failed"]
    assert (
        "DIV2K_valid_HR.zip' cannot be downloaded: No such file or directory; run the same command again to resume"
        in div2k.remark
    )
    assert "by hand (https://data.vision.ee.ethz.ch/cvl/DIV2K/): Unpack DIV2K_train_HR.zip and" in div2k.remark
    assert urban.remark.endswith(".")
    assert [path.name for path in (root / "DIV2K").iterdir()] == ["DIV2K_train_HR"]
    assert sorted(path.name for path in root.iterdir()) == ["BSDS500", "DIV2K"]

    serve("DIV2K_valid_HR.zip", zipped, files({"DIV2K_valid_HR": 100}))
    asked.clear()
    assert outcomes(["DIV2K"]) == ["fetched"]
    assert asked == ["DIV2K_valid_HR.zip"]


def test_a_folder_that_is_not_whole_is_not_replaced(root, benchmark, asked):
    (root / "Set5" / "HR").mkdir(parents=True)
    (root / "Set5" / "HR" / "mine.png").touch()
    with pytest.raises(InputError, match=r"'.*Set5/HR' holds 1 images, but Set5 has 5; move it away"):
        fetch(["Set5"])
    assert asked == []
    assert tree(root) == ["Set5/HR/mine.png"]


def test_an_archive_with_another_hash_is_refused(root, benchmark):
    benchmark.write_bytes(b"something else")
    with pytest.raises(InputError, match=r"benchmark\.tar' has the sha256 .*, but .* is expected"):
        fetch(["Set5"])
    assert tree(root) == []


def link(name, kind=tarfile.SYMTYPE, target="/etc/passwd"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (link("../outside.png"), r"its member '\.\./outside\.png' leads out of it"),
        (link("benchmark/Set5/HR/../../../../outside.png"), "leads out of it"),
        (link("/outside.png"), r"its member '/outside\.png' leads out of it"),
        (link("benchmark/Set5/HR/a.png"), r"'benchmark/Set5/HR/a\.png' is a link or a device, not a file"),
        (link("benchmark/Set5/HR/a.png", tarfile.LNKTYPE, "benchmark/Set5/HR/HR-0.png"), "is a link or a device"),
        (link("benchmark/Set5/HR/a.png", tarfile.CHRTYPE), "is a link or a device"),
        (link("benchmark/Set5/HR/a.png", tarfile.FIFOTYPE), "is a link or a device"),
    ],
    ids=["above", "winding", "absolute", "symlink", "hardlink", "device", "pipe"],
)
def test_a_suspicious_archive_is_refused_whole(root, serve, tmp_path, extra, sentence):
    serve("benchmark.tar", tar, files(BENCHMARK), extra=[extra])
    before = tree(tmp_path)
    with pytest.raises(InputError, match=rf"'benchmark\.tar' is refused: .*{sentence}"):
        fetch(["Set5"])
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["../outside.png", "/outside.png"])
def test_a_suspicious_zip_is_refused_whole(root, serve, tmp_path, name):
    serve("DIV2K_train_HR.zip", zipped, files({"DIV2K_train_HR": 800}) | {name: b""})
    before = tree(tmp_path)
    with pytest.raises(InputError, match=r"'DIV2K_train_HR\.zip' is refused: its member '.*' leads out of it"):
        fetch(["DIV2K"])
    assert tree(tmp_path) == before


def test_a_link_in_a_zip_is_refused(root, serve):
    info = zipfile.ZipInfo("DIV2K_train_HR/a.png")
    info.external_attr = 0o120777 << 16
    serve("DIV2K_train_HR.zip", zipped, files({"DIV2K_train_HR": 800}) | {info: b"/etc/passwd"})
    with pytest.raises(InputError, match=r"its member 'DIV2K_train_HR/a\.png' is a link or a device"):
        fetch(["DIV2K"])


def test_a_link_that_nobody_asks_for_is_no_obstacle(root, serve):
    serve("benchmark.tar", tar, files(BENCHMARK), extra=[link("benchmark/latest"), link("benchmark/Set5/HR/notes.txt")])
    assert outcomes(["Set5"]) == ["fetched"]


def test_an_archive_that_lacks_images_is_refused(root, serve):
    serve("benchmark.tar", tar, files(BENCHMARK | {"benchmark/Set5/LR_bicubic/X3": 4}))
    with pytest.raises(InputError, match=r"'benchmark\.tar' holds 4 images for 'Set5/LR_bicubic/X3', not 5"):
        fetch(["Set5"])
    assert tree(root) == []


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:2000] + bytes(len(b) - 2000)]
)
@pytest.mark.parametrize(
    ("file", "name"), [("BSR_bsds500.tgz", "BSDS500"), ("benchmark.tar", "B100"), ("DIV2K_train_HR.zip", "DIV2K")]
)
def test_an_archive_that_was_damaged_before_it_was_hashed_is_refused(root, serve, file, name, damage):
    def write(path):
        if file == "BSR_bsds500.tgz":
            tar(path, files(BSDS500), mode="w:gz")
        elif file == "benchmark.tar":
            tar(path, files(BENCHMARK))
        else:
            zipped(path, files({"DIV2K_train_HR": 800}))
        path.write_bytes(damage(path.read_bytes()))

    serve(file, write)
    with pytest.raises(
        InputError, match=f"'{file}' (is damaged .* and was deleted; fetch it again|holds .* images for)"
    ):
        fetch([name])
    assert tree(root) == []


def interrupted(*_):
    raise KeyboardInterrupt


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("fault", "error"), [(interrupted, KeyboardInterrupt), (full, OSError)])
def test_an_end_while_unpacking_leaves_the_archive_alone(root, benchmark, asked, monkeypatch, fault, error):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fault)
        with pytest.raises(error) as raised:
            fetch(["Set5"])
    if error is OSError:
        assert (raised.value.errno, Path(raised.value.filename).name) == (errno.ENOSPC, "HR-0.png")
    assert tree(root) == [".fetch/benchmark.tar"]
    size = benchmark.stat().st_size
    benchmark.unlink()
    assert (root / ".fetch" / "benchmark.tar").stat().st_size == size
    assert outcomes(["Set5"]) == ["fetched"]
    assert [path.name for path in root.iterdir()] == ["Set5"]


def test_what_a_killed_process_left_is_cleared_away(root, benchmark):
    left = root / ".fetch" / "unpacked" / "Set5" / "HR"
    left.mkdir(parents=True)
    (left / "half.png").touch()
    assert outcomes(["Set5"]) == ["fetched"]
    assert "Set5/HR/half.png" not in tree(root)
    assert [path.name for path in root.iterdir()] == ["Set5"]


@pytest.mark.filterwarnings("ignore:another process holds")
def test_several_at_once_fetch_it_once(root, benchmark, asked):
    with ThreadPoolExecutor(3) as pool:
        seen = list(pool.map(lambda _: outcomes(["Set5"]), range(3)))
    assert sorted(seen) == [["fetched"], ["here"], ["here"]]
    assert asked == ["benchmark.tar"]
    assert [path.name for path in root.iterdir()] == ["Set5"]


# What references lack


def test_what_references_lack_is_said_and_downloaded_once(root, benchmark, asked):
    said = []
    references = [("Set14,lr", "test"), ("demo", "test"), ("mine=/nowhere", "test"), ("Manga109", "test")]
    references = [("Set5", "test"), *references, (f"B100=packed:{'0' * 64}", "test"), ("Urban100=/nowhere,lr", "test")]
    assert [download_size(reference, role, 4) for reference, role in references] == [250_112_000] * 2 + [0] * 5
    fetch_missing(references, 4, said.append)
    assert said == [f"downloading Set5 and Set14 (250 MB) from this machine to '{root}'"]
    assert asked == ["benchmark.tar"]
    assert len(tree(root)) == 4 * (5 + 14)
    fetch_missing(references, 4, said.append)
    assert (len(said), asked) == (1, ["benchmark.tar"])


def test_a_reference_that_lacks_only_low_resolution_files_downloads_them(root, serve, asked):
    serve("DIV2K_train_HR.zip", zipped, files({"DIV2K_train_HR": 800}))
    serve("DIV2K_valid_HR.zip", zipped, files({"DIV2K_valid_HR": 100}))
    serve("DIV2K_train_LR_bicubic_X2.zip", zipped, files({"DIV2K_train_LR_bicubic/X2": 800}))
    serve("DIV2K_valid_LR_bicubic_X2.zip", zipped, files({"DIV2K_valid_LR_bicubic/X2": 100}))
    fetch(["DIV2K"])
    asked.clear()
    fetch_missing([("DIV2K,lr=/nowhere", "train")], 2, print)
    assert asked == []
    fetch_missing([("DIV2K,lr", "train")], 2, print)
    assert asked == ["DIV2K_train_LR_bicubic_X2.zip", "DIV2K_valid_LR_bicubic_X2.zip"]


def test_a_download_that_fails_is_missing_data(root, serve):
    with pytest.raises(
        MissingDataError, match=r"' cannot be downloaded: .* or see in 'sgbench data list' how to get Set5"
    ):
        fetch_missing([("Set5", "test")], 4, print)
