"""A folder of images as a data set and as a data module: every kind of file, and every mistake."""

import io
import os
import pickle
import random
import re
from functools import partial

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import nn
from torch.utils.data import DataLoader
from toys import TRAINER

from al_lightning.data import image_pool, pictures
from al_lightning.data.fingerprint import SomeRows, fingerprint
from al_lightning.data.image_pool import ImagePool
from al_lightning.data.images import ActiveImageDataModule
from al_lightning.data.pictures import to_tensor
from al_lightning.data.views import UnreadableRowError
from al_lightning.training.trainers import quiet

CLASSES = ["circle", "square"]
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def draw_shape(path, seed, side=32):
    """A circle or a square; gives which."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    label, hue = draw.randrange(2), draw.randrange(360)
    picture = Image.new("RGB", (side, side), f"hsl({draw.randrange(360)},60%,20%)")
    pen, box = ImageDraw.Draw(picture), (side // 4, side // 4, 3 * side // 4, 3 * side // 4)
    (pen.ellipse if label == 0 else pen.rectangle)(box, fill=f"hsl({hue},90%,60%)")
    picture.save(path)
    return CLASSES[label]


def draw_shapes(folder, num):
    """Labels by path."""
    return {name: draw_shape(folder / name, i) for i in range(num) for name in [f"{i:03}.png"]}


def write_labels(path, labels):
    path.write_text("path,label\n" + "".join(f"{p},{label}\n" for p, label in labels.items()))
    return path


def one_image(folder, picture, name="a.png", **options):
    """The picture as a pool reads it back."""
    folder.mkdir(exist_ok=True)
    picture.save(folder / name, **options)
    return ImagePool(folder).picture(0)


@pytest.fixture
def folder(tmp_path):
    draw_shapes(tmp_path / "photos", 12)
    return tmp_path / "photos"


# ---- which files, in which order -----------------------------------------------------------------


def test_images_below_the_folder_in_the_order_of_their_paths(tmp_path):
    wanted = ["B.JPG", "a.PNG", "a/1.jpeg", "a/b/2.WebP", "a0.bmp", "b.gif", "c.tif", "d.TIFF"]
    others = ["x.txt", "png", "labels.csv", ".hidden.png", ".git/1.png", "a/.b/1.png"]
    for name in reversed([*wanted, *others]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(tmp_path / name, format="PNG")  # the suffix does not matter
    (tmp_path / "folder.png").mkdir()
    pool = ImagePool(str(tmp_path))
    assert list(pool.paths) == wanted
    assert len(pool) == 8
    assert pool.unreadable() == {}


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_links_inside_are_images_and_those_that_lead_out_are_named(tmp_path):
    folder, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    draw_shapes(folder, 1)
    draw_shapes(elsewhere, 2)
    (folder / "inside.png").symlink_to("000.png")
    (folder / "none.png").symlink_to("nowhere.png")
    (folder / "loop").symlink_to(folder)
    assert list(ImagePool(folder).paths) == ["000.png", "inside.png"]
    (folder / "out.png").symlink_to("../elsewhere/000.png")
    (folder / "out").symlink_to(elsewhere)
    (folder / "photos2.png").symlink_to(tmp_path / "photos2" / "1.png")  # a longer name, not inside
    with pytest.warns(UserWarning, match=r"3 links lead out of .*'out', 'out.png'.*copy the files"):
        assert list(ImagePool(folder).paths) == ["000.png", "inside.png"]
    linked = tmp_path / "linked"
    linked.symlink_to(elsewhere)
    assert len(ImagePool(linked)) == 2


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_a_folder_of_links_alone_says_why_it_is_empty(tmp_path):
    draw_shapes(tmp_path / "elsewhere", 1)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "out.png").symlink_to(tmp_path / "elsewhere" / "000.png")
    with pytest.raises(ValueError, match=r"found none in .*; 1 links lead out of .*'out.png'"):
        ImagePool(tmp_path / "photos")


def test_a_folder_must_be_one_and_hold_images(tmp_path):
    with pytest.raises(ValueError, match="folder must be a folder of images, found nothing at"):
        ImagePool(tmp_path / "missing")
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(ValueError, match="found a file at"):
        ImagePool(tmp_path / "a.txt")
    with pytest.raises(
        ValueError, match=r"must hold images \(.png, .*\), found none in .* or below$"
    ):
        ImagePool(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="file systems that refuse such names")
def test_names_of_any_bytes_are_kept_in_the_order_of_texts(tmp_path):
    texts = sorted(["\udcff.png", "\U0001f600.png", "é.png", "e.png"])
    for i, text in enumerate(texts):
        draw_shape(tmp_path / text, seed=i, side=4 + i)
    pool = ImagePool(tmp_path)
    assert pool.paths == texts
    assert [pool.picture(i).size[0] for i in range(4)] == [4, 5, 6, 7]


def test_a_label_finds_its_image_whatever_the_order_of_the_table(tmp_path):
    known = draw_shapes(tmp_path / "photos", 9)
    table = write_labels(tmp_path / "labels.csv", {p: known[p] for p in reversed(known)})
    data = ActiveImageDataModule(tmp_path / "photos", table)
    assert [CLASSES[label] for label in data.labels_of(range(9))] == list(known.values())


# ---- what a picture looks like -------------------------------------------------------------------


def test_an_item_is_a_square_in_zero_to_one(tmp_path):
    wide = Image.new("RGB", (80, 20), RED)
    wide.paste(BLUE, (40, 0, 80, 20))
    one_image(tmp_path, wide)
    item = ImagePool(tmp_path, image_size=8)[0]
    assert (type(item), item.shape, item.dtype) == (torch.Tensor, (3, 8, 8), torch.float32)
    assert (item.min(), item.max()) == (0, 1)
    assert item[:, :, 0].tolist() == [[1] * 8, [0] * 8, [0] * 8]  # nothing is cut off
    assert item[:, :, 7].tolist() == [[0] * 8, [0] * 8, [1] * 8]
    assert ImagePool(tmp_path)[0].shape == (3, 64, 64)
    assert ImagePool(tmp_path).picture(0).size == (80, 20)


def test_without_a_size_the_transform_sees_the_picture_as_it_is(tmp_path):
    one_image(tmp_path, Image.new("RGB", (80, 20), RED))
    assert ImagePool(tmp_path, image_size=None)[0].shape == (3, 20, 80)
    sizes = ImagePool(tmp_path, image_size=None, transform=lambda picture: picture.size)
    assert sizes[0] == (80, 20)
    assert ImagePool(tmp_path, image_size=5, transform=lambda picture: picture.size)[0] == (5, 5)
    with pytest.raises(ValueError, match="image_size must be at least 1, got 0"):
        ImagePool(tmp_path, image_size=0)


def test_another_transform_of_the_same_images(folder):
    pool = ImagePool(folder)
    modes = pool.with_transform(lambda picture: picture.mode)
    assert modes[0] == "RGB"
    assert modes.paths is pool.paths
    assert pool[0].shape == (3, 64, 64)


def corners(picture):
    w, h = picture.size
    return [picture.getpixel(place) for place in ((2, 2), (w - 3, 2), (2, h - 3), (w - 3, h - 3))]


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied_once(tmp_path, name, orientation):
    upright = Image.new("RGB", (64, 32), WHITE)
    upright.paste(RED, (0, 0, 32, 16))
    upright.paste(BLUE, (32, 0, 64, 16))
    turned_back = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright if turned_back is None else upright.transpose(turned_back)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = one_image(tmp_path, stored, name, exif=exif, quality=100)
    assert picture.size == (64, 32)
    for found, wanted in zip(corners(picture), [RED, BLUE, WHITE, WHITE]):
        assert np.abs(np.subtract(found, wanted)).max() < 10
    item = ImagePool(tmp_path, image_size=8)[0]
    assert item[:, 1, 1].round().tolist() == [1, 0, 0]
    assert item[:, 1, 6].round().tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("mode", "color", "name", "wanted"),
    [
        ("1", 1, "a.png", WHITE),
        ("L", 128, "a.png", (128, 128, 128)),
        ("L", 128, "a.jpg", (128, 128, 128)),
        ("CMYK", (0, 255, 255, 0), "a.tif", RED),
        ("CMYK", (0, 255, 255, 0), "a.jpg", RED),
        ("RGBA", (0, 0, 255, 255), "a.png", BLUE),
        ("RGBA", (0, 0, 0, 0), "a.png", WHITE),
        ("RGBA", (0, 0, 0, 0), "a.webp", WHITE),
        ("LA", (0, 0), "a.png", WHITE),
        ("LA", (9, 255), "a.png", (9, 9, 9)),
        ("YCbCr", (128, 128, 128), "a.tif", (128, 128, 128)),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, mode, color, name, wanted):
    picture = one_image(tmp_path, Image.new(mode, (16, 16), color), name)
    assert (picture.mode, picture.size) == ("RGB", (16, 16))
    assert np.abs(np.subtract(picture.getpixel((8, 8)), wanted)).max() < 3
    assert ImagePool(tmp_path, image_size=4)[0].shape == (3, 4, 4)


def test_a_palette_with_and_without_a_transparent_colour(tmp_path):
    picture = Image.new("P", (4, 4))
    picture.putpalette([*GREEN, *BLUE])
    picture.putpixel((0, 0), 1)
    read = one_image(tmp_path / "solid", picture)
    assert (read.getpixel((0, 0)), read.getpixel((1, 1))) == (BLUE, GREEN)
    read = one_image(tmp_path / "clear", picture, transparency=0)
    assert (read.getpixel((0, 0)), read.getpixel((1, 1))) == (BLUE, WHITE)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_are_stretched_to_eight(tmp_path, name):
    values = np.array([[100, 2148], [4196, 100]], dtype=np.uint16)  # of twelve bits
    picture = one_image(tmp_path, Image.fromarray(values), name)
    assert np.asarray(picture)[..., 0].tolist() == [[0, 128], [255, 0]]
    flat = np.full((2, 2), 700, dtype=np.uint16)
    assert one_image(tmp_path, Image.fromarray(flat), name).getextrema() == ((0, 0),) * 3


def test_floats_are_stretched_and_nan_is_dark(tmp_path):
    values = np.array([[-1.0, 1.0], [np.nan, np.inf]], dtype=np.float32)
    picture = one_image(tmp_path, Image.fromarray(values), "a.tif")
    assert np.asarray(picture)[..., 0].tolist() == [[0, 255], [0, 255]]
    nothing = np.full((2, 2), np.nan, dtype=np.float32)
    assert one_image(tmp_path, Image.fromarray(nothing), "a.tif").getextrema() == ((0, 0),) * 3


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path, name):
    frames = [Image.new("RGB", (16, 16), color) for color in (RED, BLUE)]
    picture = one_image(tmp_path, frames[0], name, save_all=True, append_images=frames[1:])
    assert np.abs(np.subtract(picture.getpixel((8, 8)), RED)).max() < 10


def test_a_large_jpeg_is_read_small_and_looks_the_same(tmp_path):
    draw_shape(tmp_path / "a.jpg", seed=1, side=800)
    for side in (32, 200):
        full = ImagePool(tmp_path).picture(0).resize((side, side), Image.Resampling.BILINEAR)
        item = ImagePool(tmp_path, image_size=side)[0]
        assert (item - to_tensor(full)).abs().max() < 0.05
    assert pictures.read_picture(tmp_path / "a.jpg", at_least=64).size == (100, 100)
    assert pictures.read_picture(tmp_path / "a.jpg", at_least=900).size == (800, 800)


# ---- what cannot be read -------------------------------------------------------------------------


@pytest.fixture
def broken(tmp_path):
    """Two images that are fine among others that are not."""
    draw_shape(tmp_path / "a.png", seed=0)
    draw_shape(tmp_path / "z.jpg", seed=1, side=200)
    for source, name in (("a.png", "cut.png"), ("z.jpg", "cut.jpg")):
        content = (tmp_path / source).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) * 2 // 3])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_text("this is no image")
    (tmp_path / "drawing.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    return tmp_path


def test_unreadable_images_are_told_with_the_reason(broken):
    pool = ImagePool(broken)
    reasons = {pool.paths[index]: reason for index, reason in pool.unreadable().items()}
    assert list(reasons) == [
        "cut.jpg",
        "cut.png",
        "drawing.png",
        "empty.jpg",
        "text.png",
    ]
    assert "truncated" in reasons["cut.jpg"]
    assert "truncated" in reasons["cut.png"]
    for name in ("drawing.png", "empty.jpg", "text.png"):
        assert reasons[name].startswith("it is none of PNG, JPEG")
    assert pool.unreadable() == pool.unreadable()


def test_more_images_than_a_part_are_told_in_order_and_a_bar_shows_how_far(tmp_path, monkeypatch):
    shown = io.StringIO()
    bar = partial(image_pool.tqdm, file=shown, mininterval=0)
    monkeypatch.setattr(
        image_pool, "tqdm", lambda rows, **how: bar(rows, **{**how, "disable": False})
    )
    for i in range(300):
        (tmp_path / f"{i:03}.png").write_bytes(b"")
    draw_shape(tmp_path / "257.png", seed=0)
    assert list(ImagePool(tmp_path).unreadable()) == [i for i in range(300) if i != 257]
    assert shown.getvalue().strip() == ""  # two seconds are not over
    monkeypatch.setattr(
        image_pool, "tqdm", lambda rows, **how: bar(rows, **{**how, "disable": False, "delay": 0})
    )
    ImagePool(tmp_path).unreadable()
    assert "Reading images: 100%" in shown.getvalue()
    assert "300/300" in shown.getvalue()


def test_a_bomb_and_a_file_that_is_gone_are_unreadable(folder, monkeypatch):
    pool = ImagePool(folder)
    (folder / "003.png").unlink()
    assert pool.unreadable() == {3: "No such file or directory"}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32 * 32 // 2 - 1)
    reasons = pool.unreadable()
    assert len(reasons) == 12
    assert "decompression bomb" in reasons[0]


def test_a_decoder_may_fail_in_any_way(folder, monkeypatch):
    def fail(*args, **kwargs):
        raise IndexError

    monkeypatch.setattr(pictures.ImageOps, "exif_transpose", fail)
    assert ImagePool(folder).unreadable() == {i: "IndexError" for i in range(12)}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_reading_an_unreadable_image_names_it_and_the_cure(broken, num_workers):
    pool = ImagePool(broken)
    row = pool.paths.index("cut.jpg")
    expected = rf"found {re.escape(str(broken))}.cut.jpg: .*truncated.*; restore the file"
    with pytest.raises(UnreadableRowError, match=expected):
        next(iter(DataLoader(pool, sampler=[row], num_workers=num_workers)))
    with pytest.raises(UnreadableRowError, match=expected):
        pool.picture(row)


# ---- beside other parts --------------------------------------------------------------------------


def test_a_pool_can_be_pickled_and_read_by_workers(folder):
    pool = ImagePool(folder, image_size=16)
    again = pickle.loads(pickle.dumps(pool))
    assert list(again.paths) == list(pool.paths)
    batches = list(DataLoader(again, batch_size=8, num_workers=2))
    assert [batch.shape for batch in batches] == [(8, 3, 16, 16), (4, 3, 16, 16)]
    assert torch.equal(torch.cat(batches), torch.stack([pool[i] for i in range(12)]))
    augmented = ActiveImageDataModule(folder, classes=CLASSES).sets.train
    assert pickle.loads(pickle.dumps(augmented))[0].shape == (3, 64, 64)


def test_the_fingerprint_is_stable_and_shows_a_changed_image(folder):
    before = fingerprint(SomeRows(ImagePool(folder)))
    assert len(before) == 12
    assert fingerprint(SomeRows(ImagePool(folder))) == before
    Image.new("RGB", (32, 32)).save(folder / "005.png")
    after = fingerprint(SomeRows(ImagePool(folder)))
    assert [index for index in before if before[index] != after[index]] == ["5"]
    (folder / "005.png").write_bytes(b"")
    assert before.keys() - fingerprint(SomeRows(ImagePool(folder))).keys() == {"5"}


# ---- the data module -----------------------------------------------------------------------------


def test_without_labels_the_first_rows_are_to_be_asked(folder):
    data = ActiveImageDataModule(folder, classes=CLASSES, initial_labeled_size=3)
    assert len(data.first_indices) == 3
    assert (data.num_labeled, data.num_unlabeled, data.classes) == (0, 12, CLASSES)
    assert next(iter(data.predict_dataloader())).shape == (12, 3, 64, 64)
    assert data.names_of([1, 0]) == ["001.png", "000.png"]
    assert len(ActiveImageDataModule(folder, classes=CLASSES).first_indices) == 12
    draw_shapes(folder, 30)
    assert len(ActiveImageDataModule(folder, classes=CLASSES).first_indices) == 20


def test_a_first_image_that_is_broken_does_not_matter(folder):
    (folder / "000.png").write_bytes(b"")
    data = ActiveImageDataModule(folder, classes=CLASSES)
    with pytest.warns(UserWarning, match="1 rows cannot be read and are left out: 000.png: it is"):
        data.leave_out_unreadable()
    assert next(iter(data.predict_dataloader())).shape == (11, 3, 64, 64)


def test_with_labels_their_rows_are_the_start(tmp_path):
    known = draw_shapes(tmp_path / "photos", 12)
    first = {path: known[path] for path in ("007.png", "002.png", "011.png", "000.png")}
    table = write_labels(tmp_path / "labels.csv", first)
    data = ActiveImageDataModule(tmp_path / "photos", table, batch_size=4)
    assert data.classes == CLASSES
    assert data.labeled_indices.tolist() == [0, 2, 7, 11]
    names = [CLASSES[label] for label in data.labels_of([0, 2, 7, 11])]
    assert names == [known[path] for path in sorted(first)]
    images, labels = next(iter(data.train_dataloader()))
    assert (images.shape, labels.dtype) == ((4, 3, 64, 64), torch.int64)
    assert sorted(labels.tolist()) == sorted(data.labels_of([0, 2, 7, 11]))


def test_the_order_of_given_classes_is_kept(tmp_path):
    known = draw_shapes(tmp_path / "photos", 4)
    table = write_labels(tmp_path / "labels.csv", known)
    classes = ["star", "square", "circle"]
    data = ActiveImageDataModule(str(tmp_path / "photos"), str(table), classes)
    assert data.classes == classes
    assert [classes[label] for label in data.labels_of(range(4))] == list(known.values())


def test_training_images_are_moved_and_those_of_the_pool_are_not(folder):
    data = ActiveImageDataModule(folder, classes=CLASSES, image_size=32)
    train, pool = data.sets.train, data.sets.pool
    assert torch.equal(pool[0], pool[0])
    torch.manual_seed(0)
    views = [train[0] for _ in range(20)]
    assert all(view.shape == (3, 32, 32) for view in views)
    assert len({tuple(view.flatten().tolist()) for view in views}) > 5
    corner = pool[0][:, 0, 0]  # the ground, which is repeated at the edge
    assert all(torch.equal(view[:, 0, 0], corner) for view in views)
    still = ActiveImageDataModule(folder, classes=CLASSES, augment=False).sets
    assert still.train is still.pool


@pytest.mark.parametrize("labels", ["", "000.png,circle\n001.png,circle\n"])
def test_two_classes_must_be_known(folder, tmp_path, labels):
    (tmp_path / "labels.csv").write_text(f"path,label\n{labels}")
    expected = r"classes must be at least 2, got \[.*\]; name them with classes=, or give"
    with pytest.raises(ValueError, match=expected):
        ActiveImageDataModule(folder, tmp_path / "labels.csv")
    with pytest.raises(ValueError, match=expected):
        ActiveImageDataModule(folder)


def test_what_cannot_be_is_refused(folder, tmp_path):
    table = write_labels(tmp_path / "labels.csv", {"000.png": "circle", "001.png": "square"})
    with pytest.raises(ValueError, match="give either labels or initial_labeled_size, got both"):
        ActiveImageDataModule(folder, table, initial_labeled_size=2)
    with pytest.raises(ValueError, match="skip"):
        ActiveImageDataModule(folder, classes=["cat", "skip"])
    with pytest.raises(ValueError, match="must fit the data set"):
        ActiveImageDataModule(folder, classes=CLASSES, initial_labeled_size=13)
    with pytest.raises(ValueError, match="missing.csv"):
        ActiveImageDataModule(folder, tmp_path / "missing.csv")
    with pytest.raises(ValueError, match="no_such_folder"):
        ActiveImageDataModule(tmp_path / "no_such_folder", classes=CLASSES)


def test_a_path_that_is_not_there_is_named_with_the_nearest(folder, tmp_path):
    wrong = {"000.png": "circle", "04.png": "square", "photos/quite/else.jpg": "square"}
    table = write_labels(tmp_path / "labels.csv", wrong)
    with pytest.raises(
        ValueError,
        match=r"labels.csv must name images of .*photos, found 2 others: '04.png' \(did you mean "
        r"'0.4.png'\?\), 'photos/quite/else.jpg'",
    ):
        ActiveImageDataModule(folder, table)


def test_a_label_that_is_no_class_is_named_with_the_nearest(folder, tmp_path):
    table = write_labels(tmp_path / "labels.csv", {"000.png": "circel", "001.png": "square"})
    with pytest.raises(
        ValueError, match=r"the classes, found 1 others: 'circel' \(did you mean 'circle'"
    ):
        ActiveImageDataModule(folder, table, CLASSES)


def test_a_test_folder_brings_its_labels(folder, tmp_path):
    known = draw_shapes(tmp_path / "test", 5)
    write_labels(tmp_path / "test" / "labels.csv", known)
    data = ActiveImageDataModule(
        folder, classes=CLASSES, initial_labeled_size=2, test_folder=tmp_path / "test"
    )
    data.prepare_data()
    (images, labels) = next(iter(data.test_dataloader()))
    assert images.shape == (5, 3, 64, 64)
    assert [CLASSES[label] for label in labels.tolist()] == list(known.values())


def test_a_test_folder_without_all_labels_is_refused(folder, tmp_path):
    known = draw_shapes(tmp_path / "test", 5)
    arguments = {"classes": CLASSES, "initial_labeled_size": 2, "test_folder": tmp_path / "test"}
    with pytest.raises(
        ValueError, match=r"test_folder must hold labels.csv, .* found no .*labels.csv"
    ):
        ActiveImageDataModule(folder, **arguments)
    del known["003.png"]
    write_labels(tmp_path / "test" / "labels.csv", known)
    with pytest.raises(
        ValueError, match=r"a label for each image, found 1 of 5 without: \['003.png'"
    ):
        ActiveImageDataModule(folder, **arguments)


def test_an_unreadable_test_image_is_found_before_the_first_fit(folder, tmp_path, monkeypatch):
    known = draw_shapes(tmp_path / "test", 3)
    write_labels(tmp_path / "test" / "labels.csv", known)
    arguments = {"classes": CLASSES, "initial_labeled_size": 2, "test_folder": tmp_path / "test"}
    data = ActiveImageDataModule(folder, **arguments)
    data.prepare_data()
    (tmp_path / "test" / "001.png").write_bytes(b"")
    data.prepare_data()  # looks once
    with pytest.raises(ValueError, match=r"found 1 in .*test that are not: 001.png: it is none of"):
        ActiveImageDataModule(folder, **arguments).prepare_data()


class TinyNet(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(392, 2)
        )

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def test_step(self, batch, batch_idx):
        self.log("test_acc", (self(batch[0]).argmax(-1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def test_a_module_trains_tests_and_predicts_on_it(tmp_path):
    known = draw_shapes(tmp_path / "photos", 12)
    table = write_labels(tmp_path / "labels.csv", {p: known[p] for p in sorted(known)[:6]})
    write_labels(tmp_path / "photos" / "labels.csv", known)
    data = ActiveImageDataModule(
        tmp_path / "photos", table, image_size=30, test_folder=tmp_path / "photos", batch_size=2
    )
    trainer = TRAINER()
    model = TinyNet()
    with quiet(validates=False):
        trainer.fit(model, datamodule=data)
        assert 0 <= trainer.test(model, datamodule=data, verbose=False)[0]["test_acc"] <= 1
        assert trainer.predict(model, datamodule=data)[0].shape == (6, 2)
