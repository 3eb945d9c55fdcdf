import hashlib
import os
import pickle

import pytest
from PIL import Image, PngImagePlugin

from gmar_hf.data import Sample, open_data
from gmar_hf.errors import ArgumentTypeError
from gmar_hf.images.own_pictures import save_picture
from tests.helpers.sample_files import LABELS, deep_grey, encoded, everything, message, read, truncated, write


def test_flat_folder(tmp_path):
    for name, format in (("b.PNG", "PNG"), ("a.jpg", "JPEG"), ("c.tar.gif", "GIF"), ("Z.bmp", "BMP")):
        write(tmp_path, {name: encoded(" abcZ".index(name[0]), format)})
    write(tmp_path, {"a.pdf": b"", "metadata.csv": b"", "metadata.parquet": b"", "notes.txt": b"no image"})
    write(tmp_path, {".hidden.png": 9, ".cache/x.png": 9, "no suffix": 9})
    data = open_data(tmp_path, LABELS)
    assert everything(data) == [("Z.bmp", None, 4), ("a.jpg", None, 1), ("b.PNG", None, 2), ("c.tar.gif", None, 3)]
    assert data.has_labels is False
    assert data.identity == {
        "id": tmp_path.name, "is_local": True, "revision": None, "split": None, "num_images": 4,
        "fingerprint": data.identity["fingerprint"],
    }  # fmt: skip
    assert everything(open_data(str(tmp_path), LABELS)) == everything(data)


@pytest.mark.parametrize("place", ["", "explained/", "cat/"])
def test_pictures_that_we_have_drawn_are_no_images(tmp_path, place):
    """`gmar-hf explain --out` may write beside the images, or into a folder among the classes."""
    names = ["cat/a.png", "dog/b.png"] if place == "cat/" else ["a.png", "b.png"]
    write(tmp_path, dict(zip(names, (1, 2), strict=True)))
    before = open_data(tmp_path, LABELS)
    (tmp_path / place).mkdir(exist_ok=True)
    picture = Image.new("RGB", (9, 9), "red")
    save_picture(picture, tmp_path / place / "a-cat.png")
    picture.info["icc_profile"] = b"x" * 10_000  # which PNG has in front of the mark
    save_picture(picture, tmp_path / place / "a-dog.PNG")
    after = open_data(tmp_path, LABELS)
    assert everything(after) == everything(before)
    assert after.identity == before.identity
    assert after.has_labels is before.has_labels


def test_other_software_and_broken_files_are_images(tmp_path):
    mark = PngImagePlugin.PngInfo()
    mark.add_text("Software", "gmar_hg")
    Image.new("RGB", (4, 4)).save(tmp_path / "other.png", pnginfo=mark)
    save_picture(Image.new("RGB", (4, 4)), tmp_path / "own.png")
    whole = (tmp_path / "own.png").read_bytes()
    for length in (0, 7, 12, 30, 45):  # inside the signature, a head, IHDR and the mark
        (tmp_path / f"cut{length}.png").write_bytes(whole[:length])
    (tmp_path / "own.png").rename(tmp_path / "own.jpg")  # asked for by a name that we never give
    (tmp_path / "nowhere.png").symlink_to("gone.png")
    data = open_data(tmp_path, LABELS)
    assert len(data) == 8


def test_a_folder_of_our_pictures_alone(tmp_path):
    save_picture(Image.new("RGB", (4, 4)), tmp_path / "own.png")
    assert message(tmp_path).endswith("pictures that gmar_hf has drawn are left out.")


def test_class_folders_are_matched_by_name_not_by_order(tmp_path):
    # Sorted, "dog" would be 1 and "cat" 0 by chance; "tabby, tabby cat" would be 2: so leave "cat" out.
    write(tmp_path, {"tabby, tabby cat/b.png": 3, "dog/x.png": 1, "dog/deep/er/a.png": 2, ".git/x.png": 9})
    data = open_data(tmp_path, LABELS)
    assert everything(data) == [
        ("dog/deep/er/a.png", (1,), 2),
        ("dog/x.png", (1,), 1),
        ("tabby, tabby cat/b.png", (2,), 3),
    ]
    assert data.has_labels is True


def test_label_map(tmp_path):
    write(tmp_path, {"n01/a.png": 1, "n02/a.png": 2, "dog/a.png": 3, "cat/a.png": 4, "0/a.png": 5})
    label_map = {"n01": "tabby, tabby cat", "n02": 4, "cat": "dog", "0": 0, "of another split": "dog"}
    data = open_data(tmp_path, LABELS, label_map=label_map)
    assert [(name, labels) for name, labels, _ in everything(data)] == [
        ("0/a.png", (0,)),
        ("cat/a.png", (1,)),  # the map comes before the model's own label
        ("dog/a.png", (1,)),
        ("n01/a.png", (2,)),
        ("n02/a.png", (4,)),
    ]


def test_unknown_class_folders_are_named(tmp_path):
    write(tmp_path, {"cats/a.png": 1})
    assert message(tmp_path) == (
        "`class folder` must be one of the model's labels or an index; got 'cats'. "
        "Near it: 'cat', 'crane', 'dog'. Classes are matched by name, letter by letter, never by "
        "position: say in `label_map` (`--label-map FILE` on the command line) which label a name stands for, "
        "or leave labels out with `use_labels=False` (`--no-labels`)."
    )
    write(tmp_path, {"Dog/a.png": 1, "dog/a.png": 1, "2/a.png": 1})
    text = message(tmp_path)
    assert "got '2'" in text
    assert text.endswith(
        "A number as a name is no index until it says so, as in {\"0\": 0}. In all, 3 are unknown: '2', 'Dog', 'cats'."
    )
    assert "got 'cats'" in message(tmp_path, label_map={"2": 2, "Dog": "dog"})
    assert everything(open_data(tmp_path, LABELS, use_labels=False))[0] == ("2/a.png", None, 1)


def test_digits_that_are_labels(tmp_path):
    write(tmp_path, {"1/a.png": 1, "0/a.png": 0})
    data = open_data(tmp_path, {0: "1", 1: "0"})
    assert everything(data) == [("0/a.png", (1,), 0), ("1/a.png", (0,), 1)]


def test_labels_of_several_classes_need_the_map(tmp_path):
    write(tmp_path, {"crane/a.png": 1})
    assert "'crane', the label of classes [3, 4]. Pass an index." in message(tmp_path)
    assert everything(open_data(tmp_path, LABELS, label_map={"crane": 4})) == [("crane/a.png", (4,), 1)]


def test_bad_label_maps(tmp_path):
    write(tmp_path, {"dog/a.png": 1})
    write(tmp_path / "flat", {"a.png": 1})
    assert "`label_map` must be one of the model's labels or an index; got 'dogg'. Near it: 'dog'" in message(
        tmp_path, label_map={"x": "dogg"}
    )
    assert "`label_map` must be an index in [0, 4] or a label; got 5." in message(tmp_path, label_map={"x": 5})
    for label in (None, True, 1.0):
        assert "`label_map` must be a label or an index" in message(
            tmp_path, label_map={"dog": label}, error=ArgumentTypeError
        )
    assert "must be a mapping" in message(tmp_path, label_map=["dog"], error=ArgumentTypeError)
    assert "`label_map` (`--label-map`) must be None for a folder without class folders" in message(
        tmp_path / "flat", label_map={"x": 0}
    )
    assert message(tmp_path, label_map={"dog": 0}, use_labels=False) == (
        "`label_map` (`--label-map`) must be None with `use_labels=False` (`--no-labels`); got one. Leave one "
        "of them out."
    )


def test_label_maps_of_other_data(tmp_path):
    write(tmp_path, {"dog/a.png": 1, "cat/a.png": 2})
    assert message(tmp_path, label_map={"Nope": "dog", "Neither": 0}) == (
        "`label_map` (`--label-map`) must name at least one class folder of the data; got 'Nope', 'Neither', and the "
        "data have 'cat', 'dog'. Mend the names, or leave it out."
    )
    many = {f"n{number:08d}": "dog" for number in range(1000)}
    assert "'n00000019' and 980 more, and the data have" in message(tmp_path, label_map=many)
    for label_map in ({}, many | {"cat": "dog"}):
        assert len(everything(open_data(tmp_path, LABELS, label_map=label_map))) == 2


def test_all_unknown_class_folders_are_named(tmp_path):
    write(tmp_path, {f"class {number:02d}/a.png": 1 for number in range(20)})
    text = message(tmp_path)
    assert all(repr(f"class {number:02d}") in text for number in range(20))
    write(tmp_path, {"class 20/a.png": 1, "class 21/a.png": 1})
    assert message(tmp_path).endswith(
        "In all, 22 are unknown: " + ", ".join(repr(f"class {number:02d}") for number in range(20)) + " and 2 more."
    )


def test_images_beside_class_folders(tmp_path):
    write(tmp_path, {"dog/a.png": 1, "b.png": 2})
    text = message(tmp_path)
    assert "with both: 'b.png' lies beside the folder 'dog'" in text
    assert everything(open_data(tmp_path, LABELS, use_labels=False)) == [("b.png", None, 2), ("dog/a.png", None, 1)]
    assert open_data(tmp_path, LABELS, use_labels=False).has_labels is False


def test_empty_class_folders(tmp_path):
    (tmp_path / "whatever" / "deep").mkdir(parents=True)
    write(tmp_path, {"lost+found/readme.txt": b""})
    assert "which has none" in message(tmp_path)
    write(tmp_path, {"dog/a.png": 1})
    assert everything(open_data(tmp_path, LABELS)) == [("dog/a.png", (1,), 1)]


def test_folders_of_splits(tmp_path):
    write(tmp_path, {"train/dog/a.png": 1, "val/dog/a.png": 1})
    assert message(tmp_path).endswith("If the folders are splits, pass the path of one of them.")
    assert everything(open_data(tmp_path / "val", LABELS)) == [("dog/a.png", (1,), 1)]
    assert message(tmp_path, split="train") == (
        "`split` must be left out for a folder of images (pass the folder of the split); got 'train'."
    )
    assert "`streaming` must be left out" in message(tmp_path, streaming=True)
    assert "`data_revision` (`--data-revision`) must be left out" in message(tmp_path, revision="main")


def test_broken_images_are_samples(tmp_path):
    write(tmp_path, {"dog/a.png": b"", "dog/b.png": b"text", "dog/c.png": truncated(), "dog/d.png": 7})
    write(tmp_path, {"dog/e.jpg": encoded(9, "JPEG")[:100]})
    (tmp_path / "dog" / "gone.png").symlink_to("nowhere.png")
    data = open_data(tmp_path, LABELS)
    samples = [data.read(index) for index in range(len(data))]
    assert [sample.labels for sample in samples] == [(1,)] * 6
    assert [sample.image is None for sample in samples] == [True, True, True, False, True, True]
    errors = [sample.error or "" for sample in samples]
    assert errors[0] == "`image` must hold an image; got 'dog/a.png', an empty file. Copy or download it again."
    assert errors[1].startswith("`image` must be of a format that Pillow reads; got 'dog/b.png'.")
    assert errors[2].startswith("`image` must be an intact image; got 'dog/c.png' (")
    assert errors[3] == ""
    assert "'dog/e.jpg'" in errors[4]
    assert errors[5].startswith("`image` must be a file that can be read; got 'dog/gone.png' (No such file")
    assert not any(str(tmp_path) in error or "0x" in error for error in errors)  # reports are shared
    (tmp_path / "dog" / "d.png").unlink()
    assert "got 'dog/d.png' (No such file or directory)" in (data.read(3).error or "")


def test_long_paths_do_not_show_in_errors(tmp_path):
    folder = tmp_path.joinpath(*["secret" * 30] * 3)
    write(folder, {"a.png": b"broken", "b.png": truncated()})
    errors = [sample.error for sample in read(folder)]
    assert len(errors) == 2
    assert all(error and "secret" not in error for error in errors)


def test_pictures_are_read_as_everywhere_else(tmp_path):
    write(tmp_path, {"deep.png": deep_grey(), "grey.png": encoded(3, mode="L"), "rgba.png": encoded(200, mode="RGBA")})
    assert [value for *_, value in everything(open_data(tmp_path, LABELS))] == [128, 3, 200]


def test_symbolic_links(tmp_path):
    store = write(tmp_path / "store", {"blob1": 1, "blob2.png": 2, "kept/x.png": 3})
    folder = tmp_path / "data"
    for name in ("dog", "cat/again"):
        (folder / name).mkdir(parents=True)
    (folder / "dog" / "a.png").symlink_to(store / "blob1")  # of a Hub cache: the suffix is the link's
    (folder / "dog" / "b.png").symlink_to(os.path.relpath(store / "blob2.png", folder / "dog"))
    (folder / "tabby, tabby cat").symlink_to(store / "kept")
    (folder / "cat" / "again" / "loop").symlink_to(folder)
    (folder / "cat" / "self.png").symlink_to("self.png")
    (folder / "cat" / "self").symlink_to("self")
    (folder / "cat" / "again" / "c.png").symlink_to(store / "blob1")
    data = open_data(folder, LABELS)
    assert everything(data) == [
        ("cat/again/c.png", (0,), 1),
        ("cat/self.png", (0,), None),
        ("dog/a.png", (1,), 1),
        ("dog/b.png", (1,), 2),
        ("tabby, tabby cat/x.png", (2,), 3),
    ]
    linked = tmp_path / "link"
    linked.symlink_to(folder)
    assert everything(open_data(linked, LABELS)) == everything(data)
    assert open_data(linked, LABELS).identity == data.identity | {"id": "link"}


def test_names_in_any_script(tmp_path):
    labels = {0: "犬", 1: "Ärger", 2: "a\u202eb"}
    write(tmp_path, {"犬/写真 1.png": 1, "Ärger/é.png": 2, "a\u202eb/x\n.png": 3})
    assert everything(open_data(tmp_path, labels)) == [
        ("a\u202eb/x\n.png", (2,), 3),
        ("Ärger/é.png", (1,), 2),
        ("犬/写真 1.png", (0,), 1),
    ]
    assert message(tmp_path, label_map={"犬": 0, "Ärger": 0}).startswith(
        "`class folder` must be one of the model's labels or an index; got 'a\\u202eb'."
    )


def test_names_that_are_not_utf8(tmp_path):
    raw = os.fsencode(tmp_path) + b"/\xff.png"
    with open(raw, "wb") as file:
        file.write(encoded(5))
    data = open_data(tmp_path, LABELS)
    assert everything(data) == [("\udcff.png", None, 5)]
    assert len(data.identity["fingerprint"]) == 32


def test_order_and_fingerprint_depend_on_paths_and_sizes_only(tmp_path, monkeypatch):
    files = {"dog/b.png": 1, "dog/B.png": 2, "dog/a/z.png": 3, "cat/10.png": 4, "cat/9.png": 5}
    folder, second = write(tmp_path / "one", files), write(tmp_path / "two", dict(reversed(files.items())))
    data = open_data(folder, LABELS)
    names = [name for name, *_ in everything(data)]
    assert names == ["cat/10.png", "cat/9.png", "dog/B.png", "dog/a/z.png", "dog/b.png"] == sorted(files)
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: list(scandir(path))[::-1])
    assert open_data(second, LABELS).identity["fingerprint"] == data.identity["fingerprint"]
    lines = "\0".join(["folder", *(f"{name}\0{(folder / name).stat().st_size}" for name in names)])
    assert data.identity["fingerprint"] == hashlib.sha256(lines.encode()).hexdigest()[:32]
    os.utime(folder / "dog/b.png", (0, 0))
    assert open_data(folder, LABELS).identity == data.identity
    renamed_file = (folder / "dog/b.png").rename(folder / "dog/c.png")
    renamed = open_data(folder, LABELS).identity
    renamed_file.write_bytes(renamed_file.read_bytes() + b"x")
    grown = open_data(folder, LABELS).identity
    assert len({data.identity["fingerprint"], renamed["fingerprint"], grown["fingerprint"]}) == 3


def test_it_can_be_pickled_and_read_from_elsewhere(tmp_path, monkeypatch):
    write(tmp_path / "here", {"dog/a.png": 1})
    monkeypatch.chdir(tmp_path)
    data = open_data("here", LABELS)
    assert data.identity["id"] == "here"
    monkeypatch.chdir("/")
    assert everything(pickle.loads(pickle.dumps(data))) == [("dog/a.png", (1,), 1)]


def test_the_folder_here_has_a_name(tmp_path, monkeypatch):
    write(tmp_path / "pets", {"a.png": 1})
    monkeypatch.chdir(tmp_path / "pets")
    assert open_data(".", LABELS).identity["id"] == "pets"


def test_thousands_of_classes(tmp_path):
    labels = {index: f"label {index}" for index in range(20_000)}
    label_map = {f"n{index:08d}": f"label {19_999 - index}" for index in range(20_000)}
    write(tmp_path, {"n00000000/a.png": 1, "n00019998/a.png": 1, "label 77/a.png": 1})
    data = open_data(tmp_path, labels, label_map=label_map)
    assert [labels for _, labels, _ in everything(data)] == [(77,), (19_999,), (1,)]


def test_folders_that_may_not_be_read(tmp_path, monkeypatch):
    write(tmp_path, {"dog/a.png": 1, "cat/a.png": 1})
    scandir = os.scandir

    def refusing(path):
        if path == str(tmp_path / "dog"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert message(tmp_path) == (
        f"`data` must be a folder that can be read; got {str(tmp_path / 'dog')!r} (Permission denied). "
        "Check that you may read it."
    )


def test_files_that_vanish_while_they_are_listed(tmp_path, monkeypatch):
    write(tmp_path, {"dog/a.png": 1, "dog/b.png": 2})
    scandir = os.scandir

    def losing(path):
        entries = list(scandir(path))
        (tmp_path / "dog" / "a.png").unlink(missing_ok=True)
        return entries

    monkeypatch.setattr(os, "scandir", losing)
    assert [name for name, *_ in everything(open_data(tmp_path, LABELS))][-1:] == ["dog/b.png"]


def test_samples_cannot_be_changed():
    sample = Sample("a.png", None, (1,), "broken")
    with pytest.raises(AttributeError):
        sample.name = "b.png"  # type: ignore[misc]
