import functools
import io
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset

import gmar_hf.demo
from gmar_hf.data import StreamData, open_data
from gmar_hf.errors import ArgumentError, ArgumentTypeError, ImageError
from gmar_hf.images.mask_reading import mask_of_bytes, mask_of_image
from tests.helpers import sample_files
from tests.helpers.sample_files import LABELS, encoded, truncated, write

# (height, width) = (2, 3), of an object and what surrounds it
OBJECT = np.array([[True, False, False], [True, True, False]])


def picture(size=(3, 2)):
    return Image.new("RGB", size)


def file_of(image, format="PNG", **settings):
    stored = io.BytesIO()
    image.save(stored, format, **settings)
    return stored.getvalue()


def grey(mask=OBJECT, value=255):
    return Image.fromarray(mask.astype(np.uint8) * value)


read = functools.partial(sample_files.read, use_masks=True)
message = functools.partial(sample_files.message, use_masks=True)


def masks_of(*items, **settings):
    by_item = [sample.masks for sample in read(list(items), **settings)]
    for masks in by_item:
        assert all(mask.dtype == bool for mask in (masks or {}).values())
    return [masks and {key: mask.tolist() for key, mask in masks.items()} for masks in by_item]


class TestItems:
    @pytest.mark.parametrize(
        "mask",
        [
            OBJECT,
            OBJECT.astype(np.uint8),
            OBJECT.astype(np.int64) * -7,
            torch.from_numpy(OBJECT),
            torch.from_numpy(OBJECT).to(torch.uint8),
            grey(),
            grey(value=1),
            Image.fromarray(OBJECT),
        ],
    )
    def test_one_mask_is_of_whatever_class_is_explained(self, mask):
        assert masks_of({"image": picture(), "mask": mask}) == [{None: OBJECT.tolist()}]

    def test_masks_by_class(self):
        item = {"image": picture(), "masks": {"dog": OBJECT, np.int64(2): ~OBJECT, None: grey()}}
        assert masks_of(item) == [{1: OBJECT.tolist(), 2: (~OBJECT).tolist(), None: OBJECT.tolist()}]
        assert masks_of(item, use_labels=False) == masks_of(item)

    def test_label_maps_name_the_masks_of_classes(self):
        item = {"image": picture(), "label": "hound", "masks": {"hound": OBJECT, "7": ~OBJECT}}
        assert masks_of(item, label_map={"hound": "dog", "7": 0}) == [{1: OBJECT.tolist(), 0: (~OBJECT).tolist()}]

    def test_two_masks_of_one_class_are_joined(self):
        item = {"image": picture(), "masks": {"dog": OBJECT, 1: ~OBJECT}}
        assert masks_of(item) == [{1: [[True] * 3] * 2}]
        assert OBJECT.tolist() == [[True, False, False], [True, True, False]]  # the user's own is as it was

    def test_items_without_masks(self):
        items = [{"image": picture()}, {"image": picture(), "mask": None}, {"image": picture(), "masks": {}}]
        assert masks_of(*items) == [None, None, None]
        assert [open_data([item], LABELS, use_masks=True).has_masks for item in items] == [False, True, True]

    def test_fingerprints_of_masks(self, tmp_path):
        def fingerprint(*masks, **settings):
            items = [{"image": picture((number + 2, 3)), "masks": mask} for number, mask in enumerate(masks)]
            return open_data(items, LABELS, **{"use_masks": True, **settings}).masks_fingerprint

        write(tmp_path, {"one.png": file_of(grey())})
        same = [{"dog": OBJECT}, {"dog": grey()}, {"dog": tmp_path / "one.png"}, {"dog": OBJECT.astype(int)}]
        assert len({fingerprint(mask, {}) for mask in same}) == 1
        others = [{"dog": OBJECT}, {1: OBJECT}, {"dog": ~OBJECT}, {"dog": OBJECT.T}, {}, None, {"dog": "nowhere.png"}]
        assert len({fingerprint(mask, {}) for mask in others}) == len(others) - 1  # none at all is said in two ways
        assert fingerprint({"dog": OBJECT}, use_masks=False) == ""
        single = open_data([{"image": picture(), "mask": OBJECT}], LABELS, use_masks=True)
        assert single.masks_fingerprint not in ("", fingerprint({"dog": OBJECT}))

    def test_whether_their_class_is_known(self, tmp_path):
        for masks in ({"dog": OBJECT}, {}, None, {"dog": OBJECT, None: OBJECT}, {None: OBJECT}):
            data = open_data([{"image": picture(), "masks": masks}], LABELS, use_masks=True)
            assert data.has_class_masks is (masks is None or set(masks) != {None})
        assert open_data([{"image": picture(), "mask": OBJECT}], LABELS, use_masks=True).has_class_masks is False
        assert open_data([{"image": picture(), "masks": {"dog": OBJECT}}], LABELS).has_class_masks is False

    def test_masks_are_not_looked_at_unless_asked_for(self):
        class Unread:
            def __array__(self, *args, **kwargs):
                raise AssertionError("a mask was read")

        item = {"image": picture(), "masks": {"no class of this model": Unread()}, "mask": Unread()}
        data = open_data([item], LABELS)
        assert data.has_masks is False
        assert sample_files.read([item])[0].masks is None

    def test_scenes_of_the_demo(self):
        scenes = gmar_hf.demo.scenes(3, seed=5)
        data = open_data(scenes, dict.fromkeys(range(6), ""), use_masks=True)
        assert data.has_masks is True
        copied = pickle.loads(pickle.dumps(data))  # as a loader's workers get it
        for index, scene in enumerate(scenes):
            masks = copied.read(index).masks
            assert list(masks) == list(scene["masks"])
            assert all((masks[key] == scene["masks"][key]).all() for key in masks)

    def test_pixel_values(self):
        item = {"pixel_values": torch.zeros(3, 2, 3), "mask": OBJECT}
        assert masks_of(item) == [{None: OBJECT.tolist()}]
        assert message([item | {"pixel_values": torch.zeros(3, 3, 2)}]) == (
            "`mask` must have the size of its image, once that is turned upright; got a mask of 3 x 2 (width x "
            "height) for 'item 0' of 2 x 3. Resize the mask with `Image.Resampling.NEAREST`."
        )

    def test_masks_of_another_size(self):
        wrong = OBJECT.T
        by_class = ({"masks": {1: wrong}}, {"masks": {1: wrong, "dog": OBJECT}})
        for item in ({"mask": wrong}, {"mask": grey(wrong)}, *by_class):
            text = message([{"image": picture()}, {"image": picture()} | item])
            assert text.startswith("`mask` must have the size of its image")
            assert "got a mask of 2 x 3 (width x height) for 'item 1' of 3 x 2." in text
        assert "got a mask of 3 x 1 (width" in message([{"image": picture(), "mask": OBJECT[:1]}])

    def test_what_is_no_mask(self):
        def of(mask):
            return message([{"image": picture(), "mask": mask}], error=(ArgumentError, ArgumentTypeError))

        for mask, got in ((OBJECT * 0.5, "an array of float64"), (OBJECT.tolist(), "list"), (b"mask", "bytes")):
            assert of(mask) == (
                f"`mask` must be an array of bools or integers, a PIL image or the path of one; got {got} for item 0. "
                "Compare it with a threshold of your own."
            )
        assert of(OBJECT[None]) == (
            "`mask` must have the shape (height, width); got (1, 2, 3) for item 0. Pass one plane of it, or `masks` "
            "by class."
        )

    def test_what_are_no_masks(self):
        def of(masks, error=ArgumentError, **more):
            return message([{"image": picture(), "masks": masks} | more], error)

        assert of([OBJECT], ArgumentTypeError) == (
            "`masks` must be a mapping from class indices or labels to masks; got list for item 0. Pass a single one, "
            "for whatever class is explained, as `mask`."
        )
        assert of({1: OBJECT}, mask=OBJECT) == (
            "`data` must give either `mask` or `masks`; got both for item 0. Leave one out."
        )
        assert "`masks` must be one of the model's labels or an index; got 'cow'." in of({"cow": OBJECT})
        assert "`masks` must name one class; got 'crane'" in of({"crane": OBJECT})
        assert "item 0: `masks` must be an index in [0, 4] or a label; got 5." in of({5: OBJECT})
        assert "must have class indices or labels as keys; got -1 for item 0." in of({-1: OBJECT})
        assert "as keys; got True for item 0." in of({True: OBJECT}, ArgumentTypeError)
        assert "as keys; got (1, 2) for item 0." in of({(1, 2): OBJECT}, ArgumentTypeError)

    def test_paths_of_masks_and_broken_ones(self, tmp_path):
        write(tmp_path, {"good.png": file_of(grey()), "half.png": truncated(), "empty.png": b"", "text.png": b"text"})
        items = [
            {"image": picture(), "label": 1, "mask": path}
            for path in (tmp_path / "good.png", *(str(tmp_path / f"{name}.png") for name in ("half", "empty", "text")))
        ]
        good, *bad = read([*items, {"image": picture(), "mask": str(tmp_path / "gone.png")}])
        assert (good.masks[None] == OBJECT).all()
        assert [sample.image for sample in bad] == [None] * 4
        assert [sample.masks for sample in bad] == [None] * 4
        assert [sample.labels for sample in bad] == [(1,)] * 3 + [None]
        assert [sample.error.partition(";")[0] for sample in bad] == [
            "`mask` must be an intact image",
            "`mask` must hold an image",
            "`mask` must be of a format that Pillow reads",
            "`mask` must be a file that can be read",
        ]
        assert "got 'gone.png' (No such file or directory)" in bad[3].error
        assert not any(str(tmp_path) in sample.error for sample in bad)
        broken = Image.open(io.BytesIO(truncated()))
        (sample,) = read([{"image": picture((32, 32)), "mask": broken}])
        assert sample.error.startswith("`mask` must be an intact image; got 'mask of item 0' (")

    def test_of_an_unreadable_image_no_mask_is_read(self):
        (sample,) = read([{"image": None, "mask": "gone.png"}])
        assert sample.error == "`image` must be given; got None in item 0. Leave such items out."

    def test_a_folder_of_masks_is_refused(self, tmp_path):
        assert message([{"image": picture(), "mask": OBJECT}], masks=tmp_path) == (
            "`masks` must be left out for data that are no folder of images (they bring their own, in `mask`; ask for "
            f"them by `use_masks`); got {tmp_path!r}."
        )

    def test_streams(self):
        class Stream(IterableDataset):
            def __iter__(self):
                return iter([{"image": picture(), "mask": OBJECT}, {"image": picture()}])

        data = open_data(Stream(), LABELS, use_masks=True)
        assert isinstance(data, StreamData)
        assert data.has_masks is None
        first, second = data.read(0, 1)
        assert (first.masks[None] == OBJECT).all()
        assert second.masks is None
        assert open_data(Stream(), LABELS).has_masks is False
        assert [sample.masks for sample in open_data(Stream(), LABELS).read(0, 1)] == [None, None]


class TestImages:
    """Which pixels of an image belong to the object."""

    @pytest.mark.parametrize("value", [1, 128, 255])
    @pytest.mark.parametrize("mode", ["L", "RGB", "LA", "RGBA", "I", "F", "I;16"])
    def test_all_that_is_not_zero(self, mode, value):
        image = grey(value=value)
        image = Image.fromarray(np.asarray(image).astype(np.uint16)) if mode == "I;16" else image.convert(mode)
        assert image.mode == mode
        assert mask_of_image(image, "a").tolist() == OBJECT.tolist()

    @pytest.mark.parametrize("mode", ["1", "CMYK", "YCbCr", "HSV"])
    def test_black_is_no_object_in_any_colours(self, mode):
        image = grey().convert("RGB").convert(mode)
        assert image.mode == mode
        assert mask_of_image(image, "a").tolist() == OBJECT.tolist()

    def test_one_channel_is_enough(self):
        pixels = np.zeros((2, 3, 3), dtype=np.uint8)
        pixels[OBJECT, [0, 1, 2]] = 3
        assert mask_of_image(Image.fromarray(pixels), "a").tolist() == OBJECT.tolist()

    def test_transparent_pixels_are_no_object(self):
        image = Image.new("RGBA", (3, 2), (255, 255, 255, 0))
        image.paste((255, 255, 255, 9), mask=grey())
        assert mask_of_image(image, "a").tolist() == OBJECT.tolist()

    @pytest.mark.parametrize(
        ("colours", "indices"),
        [
            ([(0, 0, 0), (128, 0, 0)], OBJECT * 1),  # of VOC
            ([(0, 0, 0), (0, 0, 0)], OBJECT * 1),  # nobody chose colours
            ([(9, 9, 9), (255, 255, 255), (0, 0, 0)], OBJECT * 1),  # black is not used
            ([], OBJECT * 1),
            ([(255, 255, 255), (0, 0, 0)], ~OBJECT * 1),  # white happened to come first
        ],
    )
    @pytest.mark.parametrize("stored", [False, True])
    def test_palettes(self, colours, indices, stored):
        image = Image.frombytes("P", (3, 2), indices.astype(np.uint8).tobytes())
        if colours:
            image.putpalette([value for colour in colours for value in colour])
        mask = mask_of_bytes(file_of(image), "a") if stored else mask_of_image(image, "a")
        assert mask.tolist() == OBJECT.tolist()

    @pytest.mark.parametrize(
        ("indices", "border", "expected"),
        [
            ([0, 15, 255], (224, 224, 192), [False, True, False]),  # as VOC has it
            ([0, 0, 255], (224, 224, 192), [False, False, False]),
            ([0, 15, 255], (9, 9, 9), [False, True, False]),
            ([0, 0, 255], (255, 255, 255), [False, False, True]),  # a mask that happens to be in a palette
        ],
    )
    def test_the_border_of_label_maps_is_no_object(self, indices, border, expected):
        image = Image.frombytes("P", (3, 1), bytes(indices))
        image.putpalette([0, 0, 0] + [128, 0, 0] * 254 + list(border))
        for mask in (mask_of_image(image, "a"), mask_of_bytes(file_of(image), "a")):
            assert mask.tolist() == [expected]

    def test_a_border_in_grey_is_not_known_from_soft_edges(self):
        labels = np.array([[0, 15, 255]], dtype=np.uint8)
        image = Image.fromarray(labels)
        for grey_image in (image, image.convert("P"), image.convert("LA")):
            with pytest.raises(ImageError, match=r"must not hold 255 beside other numbers .*'a'\. Set void to 0"):
                mask_of_image(grey_image, "a")
        for array in (labels, torch.from_numpy(labels).long()):
            item = {"image": picture((3, 1)), "mask": array}
            assert "`mask` must not hold 255 beside other numbers" in message([item])
        # Numbers beyond 255 are those of instances.
        assert masks_of({"image": picture((3, 1)), "mask": np.array([[0, 255, 256]])}) == [
            {None: [[False, True, True]]}
        ]

    @pytest.mark.parametrize("first", [0, 255])
    def test_gifs(self, first):
        mask = np.zeros((8, 8), dtype=bool)
        mask[2:5, 3:7] = True
        mask = mask if not first else ~mask
        assert (mask_of_bytes(file_of(grey(mask), "GIF"), "a") == mask).all()

    def test_jpegs_smear_edges(self):
        mask = np.zeros((32, 32), dtype=bool)
        mask[5:18, 9:27] = True
        content = file_of(grey(mask), "JPEG", quality=50)
        smeared = np.asarray(Image.open(io.BytesIO(content)))
        assert ((smeared > 0) != mask).sum() > 50
        assert (mask_of_bytes(content, "a") == mask).all()

    def test_masks_are_turned_upright_as_images_are(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees
        stored = np.rot90(OBJECT)
        write(tmp_path, {"images/a.jpg": file_of(picture((2, 3)), "JPEG", exif=exif)})
        write(tmp_path, {"turned/a.png": file_of(grey(stored), exif=exif), "upright/a.png": file_of(grey())})
        for folder in ("turned", "upright"):
            (sample,) = read(tmp_path / "images", masks=tmp_path / folder)
            assert sample.image.size == (3, 2)
            assert sample.masks[None].tolist() == OBJECT.tolist()

    def test_the_users_image_is_as_it_was(self):
        image = grey()
        mask_of_image(image, "a")[:] = True
        assert (np.asarray(image) > 0).tolist() == OBJECT.tolist()

    def test_broken_ones(self):
        with pytest.raises(
            ImageError, match=r"^`mask` must be an intact image; got 'a\.png' \(.*\)\. Copy or download it again\.$"
        ):
            mask_of_bytes(truncated(), "a.png")


class TestFolders:
    @pytest.fixture
    def folder(self, tmp_path):
        size = OBJECT.shape[::-1]
        pictures = {name: encoded(9, size=size) for name in ("dog/a.png", "dog/b.png", "cat/a.jpeg", "cat/deep/c.PNG")}
        write(tmp_path / "images", pictures)
        return tmp_path

    def masks(self, folder, files):
        return write(folder / "masks", {name: file_of(grey(mask)) for name, mask in files.items()})

    def test_relative_paths_with_any_suffix(self, folder):
        self.masks(folder, {"dog/a.png": OBJECT, "cat/deep/c.bmp": ~OBJECT, "cat/a.tif": OBJECT, "other.png": OBJECT})
        for settings in ({}, {"use_masks": True}, {"use_masks": False}):
            data = open_data(folder / "images", LABELS, masks=folder / "masks", **settings)
            assert data.has_masks is True
            by_name = {sample.name: sample.masks for sample in map(data.read, range(len(data)))}
            assert {name: masks and masks[None].tolist() for name, masks in by_name.items()} == {
                "cat/a.jpeg": OBJECT.tolist(),
                "cat/deep/c.PNG": (~OBJECT).tolist(),
                "dog/a.png": OBJECT.tolist(),
                "dog/b.png": None,
            }
            assert all(masks is None or list(masks) == [None] for masks in by_name.values())

    def test_without_a_folder_of_masks_nothing_changes(self, folder):
        plain, unmasked = (open_data(folder / "images", LABELS, use_masks=value) for value in (False, True))
        assert plain.has_masks is unmasked.has_masks is False
        assert unmasked.read(0).masks is None
        self.masks(folder, {"dog/a.png": OBJECT})
        masked = open_data(folder / "images", LABELS, masks=folder / "masks")
        assert masked.identity == plain.identity
        assert masked.has_labels is True
        assert plain.masks_fingerprint == ""

    def test_fingerprints_tell_masks_apart(self, folder):
        fingerprints = []
        for files in ({"dog/a.png": OBJECT}, {"dog/a.png": OBJECT, "dog/b.png": OBJECT}, {"dog/a.bmp": OBJECT}):
            self.masks(folder, files)
            fingerprints.append(open_data(folder / "images", LABELS, masks=folder / "masks").masks_fingerprint)
            shutil.move(folder / "masks", folder / f"masks{len(fingerprints)}")
        self.masks(folder, {"dog/a.png": ~OBJECT})  # a file of the same size
        assert (folder / "masks/dog/a.png").stat().st_size == (folder / "masks1/dog/a.png").stat().st_size
        fingerprints.append(open_data(folder / "images", LABELS, masks=folder / "masks").masks_fingerprint)
        assert len(set(fingerprints)) == 4
        moved = open_data(folder / "images", LABELS, masks=folder / "masks1")
        assert moved.masks_fingerprint == fingerprints[0]

    def test_workers_and_processes_that_change_their_folder(self, folder, monkeypatch, tmp_path_factory):
        self.masks(folder, {"cat/a.png": OBJECT})
        monkeypatch.chdir(folder)
        data = open_data("images", LABELS, masks="masks")
        monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
        assert pickle.loads(pickle.dumps(data)).read(0).masks[None].tolist() == OBJECT.tolist()

    def test_unreadable_masks(self, folder):
        write(folder / "masks", {"cat/a.png": b"text", "dog/a.png": b"", "cat/deep/c.png": truncated()})
        os.symlink(folder / "nowhere", folder / "masks" / "dog" / "b.png")
        samples = read(folder / "images", masks=folder / "masks")
        assert [sample.image for sample in samples] == [None] * 4
        assert [sample.labels for sample in samples] == [(0,), (0,), (1,), (1,)]
        assert samples[0].error.startswith("`mask` must be of a format that Pillow reads; got 'cat/a.png'.")
        assert samples[1].error.startswith("`mask` must be an intact image; got 'cat/deep/c.png' (")
        assert samples[2].error.startswith("`mask` must hold an image; got 'dog/a.png', an empty file.")
        assert samples[3].error.startswith("`mask` must be a file that can be read; got 'dog/b.png' (No such file")
        assert not any(str(folder) in sample.error for sample in samples)

    def test_masks_of_another_size(self, folder):
        self.masks(folder, {"dog/b.png": OBJECT.T})
        assert message(folder / "images", masks=folder / "masks") == (
            "`mask` must have the size of its image, once that is turned upright; got a mask of 2 x 3 (width x "
            "height) for 'dog/b.png' of 3 x 2. Resize the mask with `Image.Resampling.NEAREST`."
        )

    def test_several_masks_of_one_image(self, folder):
        self.masks(folder, {"dog/a.bmp": OBJECT, "dog/a.tif": ~OBJECT})
        assert message(folder / "images", masks=folder / "masks") == (
            "`masks` must hold one mask for an image; got 'dog/a.bmp', 'dog/a.tif' for 'dog/a.png'. Leave one of them."
        )
        self.masks(folder, {"dog/a.png": OBJECT})  # that of the very name
        assert read(folder / "images", masks=folder / "masks")[2].masks[None].tolist() == OBJECT.tolist()

    def test_no_mask_at_all(self, folder):
        self.masks(folder, {"dog/a_mask.png": OBJECT})
        assert message(folder / "images", masks=folder / "masks") == (
            "`masks` must hold masks under the relative paths of their images (whatever the suffix); got "
            "'dog/a_mask.png' and others, where the first image is 'cat/a.jpeg'. Check the path, or rename the masks."
        )
        (folder / "masks" / "dog" / "a_mask.png").unlink()
        assert "got no images at all, where" in message(folder / "images", masks=folder / "masks")

    def test_what_is_no_folder_of_masks(self, folder):
        write(folder, {"a.png": 1})
        for name in ("missing", "a.png"):
            assert message(folder / "images", masks=folder / name) == (
                f"`masks` must be a folder that exists; got {str(folder / name)!r}. Check the path."
            )
        assert message(folder / "images", ArgumentTypeError, masks={1: OBJECT}) == (
            "`masks` must be the path of a folder; got dict."
        )

    def test_masks_among_the_images(self, folder):
        self.masks(folder, {"images/dog/a.png": OBJECT, ".masks/dog/a.png": OBJECT})
        inner = folder / "masks"
        for images, masks in ((folder, inner), (inner, inner), (inner, inner / "images")):
            assert message(images, masks=masks, use_labels=False) == (
                f"`masks` must lie outside of the images' folder (masks in it would be images, too); got "
                f"{str(masks)!r}. Move the masks beside the folder of images."
            )
        self.masks(folder, {"../images/.masks/dog/a.png": OBJECT})  # hidden: none of the images
        samples = read(folder / "images", masks=folder / "images" / ".masks")
        assert [sample.masks is not None for sample in samples] == [False, False, True, False]

    def test_folders_without_images(self, tmp_path):
        (tmp_path / "images").mkdir()
        (tmp_path / "masks").mkdir()
        assert "`data` must be a folder with images" in message(tmp_path / "images", masks=tmp_path / "masks")


class TestTables:
    @pytest.fixture(autouse=True)
    def library(self):
        self.datasets = pytest.importorskip("datasets")
        self.datasets.disable_progress_bars()

    def table(self, masks, feature=None, name="mask", image="image"):
        picture_bytes = {"bytes": encoded(5, size=(3, 2)), "path": "a.png"}
        kinds = {image: self.datasets.Image(), "label": self.datasets.Value("int64")}
        kinds[name] = feature or self.datasets.Image()
        columns = {image: [picture_bytes] * len(masks), "label": [1] * len(masks), name: masks}
        return self.datasets.Dataset.from_dict(columns, features=self.datasets.Features(kinds))

    def cell(self, content):
        return {"bytes": content, "path": None}

    @pytest.mark.parametrize("image", ["image", "picture"])
    def test_a_column_of_masks(self, image):
        table = self.table([self.cell(file_of(grey(value=1))), None], image=image)
        data = open_data(table, LABELS, use_masks=True)
        assert (data.has_masks, data.has_labels) == (True, True)
        first, second = (data.read(index) for index in range(2))
        assert (first.name, first.labels, first.image.size) == ("row 0 (a.png)", (1,), (3, 2))
        assert first.masks[None].tolist() == OBJECT.tolist()
        assert second.masks is None
        assert second.error is None
        streamed = open_data(table.to_iterable_dataset(), LABELS, use_masks=True)
        assert streamed.has_masks is True
        masks = [sample.masks for sample in streamed.read(0, 1)]
        assert masks[0][None].tolist() == OBJECT.tolist()
        assert masks[1] is None

    def test_masks_in_files(self, tmp_path):
        write(tmp_path, {"m.png": file_of(grey())})
        table = self.table([str(tmp_path / "m.png"), str(tmp_path / "gone.png")])
        first, second = read(table)
        assert first.masks[None].tolist() == OBJECT.tolist()
        assert second.image is None
        assert second.error.startswith("`mask` must be a file that can be read; got 'mask of row 1' (No such file")

    def test_masks_are_not_looked_at_unless_asked_for(self):
        for column in ([self.cell(b"broken")], [self.cell(encoded(1, size=(9, 9)))]):
            data = open_data(self.table(column), LABELS)
            assert data.has_masks is False
            assert data.read(0).masks is None
            assert data.read(0).error is None
            assert data._table.column_names == ["image", "label"]
        data = open_data(self.table([[[0]]], self.list_of(self.list_of(self.datasets.Value("int64")))), LABELS)
        assert data.read(0).masks is None

    def test_broken_masks_and_masks_of_another_size(self):
        (sample,) = read(self.table([self.cell(b"broken")]))
        assert (sample.name, sample.image, sample.labels) == ("row 0 (a.png)", None, (1,))
        assert sample.error.startswith("`mask` must be of a format that Pillow reads; got 'mask of row 0'.")
        assert message(self.table([self.cell(file_of(grey(OBJECT.T)))])) == (
            "`mask` must have the size of its image, once that is turned upright; got a mask of 2 x 3 (width x "
            "height) for 'row 0 (a.png)' of 3 x 2. Resize the mask with `Image.Resampling.NEAREST`."
        )

    def list_of(self, feature):
        return getattr(self.datasets, "List", self.datasets.Sequence)(feature)

    def test_columns_that_are_no_masks(self):
        of_images = self.list_of(self.datasets.Image())
        for name, feature, column, got in [
            ("masks", of_images, [[self.cell(encoded())]], "list of Image in column 'masks'"),
            ("mask", of_images, [[self.cell(encoded())]], "list of Image in column 'mask'"),
            ("mask", self.datasets.Value("string"), ["a.png"], "string in column 'mask'"),
        ]:
            assert message(self.table(column, feature, name)) == (
                f'`data` must have its masks in a column "mask" of type Image, one for each row; got {got}. Cast it '
                "with `cast_column`, drop it with `remove_columns`, or pass a list of dicts whose `masks` tell the "
                "mask of each class."
            )
        nothing = self.table([None], self.datasets.Value("null"))
        assert open_data(nothing, LABELS, use_masks=True).has_masks is False

    def test_a_folder_of_masks_is_refused(self, tmp_path):
        table = self.table([None])
        table.save_to_disk(tmp_path / "saved")
        table.to_parquet(tmp_path / "parquet" / "train.parquet")
        for data in (table, tmp_path / "saved", tmp_path / "parquet", "me/pets"):
            assert "`masks` must be left out for data that are no folder of images" in message(data, masks=tmp_path)
