"""All malformed inputs that are tried, each a change of a small dataset of one's own."""

from collections.abc import Callable
import dataclasses
import os
import pathlib
import shutil

import numpy as np

from minmax_jax.data.importing import raw_dataset
from tests import encoded, own_layout
from tests.own_layout import (
    BAD,
    CLASSES,
    both,
    copy,
    damaged,
    edit,
    half,
    link,
    mask,
    pixels,
    png,
    put,
    read_folders,
    read_lists,
    read_tiles,
    remove,
    rename,
)

NUM_KEPT = {"train": 5, "validation": 2, "test": 4}
# Of images of 40x48 pixels.
NUM_TILES_KEPT = {"train": 20, "validation": 8, "test": 16}


@dataclasses.dataclass(frozen=True)
class Case:
    """One malformed input.

    Attributes:
        name: of the case.
        spoil: changes the folder that `write` wrote.
        message: expression that the error's message matches.
        read: folder -> release.
        skipped: split of the image that --skip_bad leaves out; empty where the error stays.
        kept: images that each split has then, where it is not one less to train.
    """

    name: str
    spoil: own_layout.Spoil
    message: str
    read: Callable[[pathlib.Path], raw_dataset.RawDataset]
    skipped: str = ""
    kept: dict[str, int] = dataclasses.field(default_factory=dict)


IMAGES = {
    "empty": (b"", r"\(it is empty\)"),
    "one byte": (b"\xff", "no known format"),
    "zeros": (bytes(5000), "no known format"),
    "text": (b"no image", "no known format"),
    "error page": (b"<!DOCTYPE html><html><title>404 Not Found</title></html>", "no known format"),
    "drawing": (b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"/>', "no known format"),
    "document": (b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n", "no known format"),
    "archive": (own_layout.zip_file(), "no known format"),
    "pointer to large file": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "no known format"),
    "truncated JPEG": (half("JPEG"), "truncated"),
    "truncated progressive JPEG": (half("JPEG", progressive=True), "truncated"),
    "truncated PNG": (half("PNG"), "truncated"),
    "truncated GIF": (half("GIF"), "truncated"),
    "truncated WebP": (half("WEBP"), "cannot be read as an image"),
    "truncated TIFF": (half("TIFF"), "truncated"),
    "truncated TIFF with LZW": (half("TIFF", compression="tiff_lzw"), "cannot be read as an image"),
    "truncated BMP": (half("BMP"), "truncated"),
    "truncated JPEG 2000": (half("JPEG2000"), "cannot be read as an image"),
    "header only": (encoded.encode(pixels(50))[:33], "cannot be read as an image"),
    "JPEG without start": (damaged("JPEG", 0), "no known format"),
    "JPEG without sizes": (damaged("JPEG", 150, count=60), "no known format"),
    "PNG with wrong checksum": (png(40, 40, checksum=1), "no known format"),
    "PNG with damaged pixels": (damaged("PNG", 500), "broken data stream"),
    "PNG without pixels": (png(40, 40), "truncated"),
    "PNG of no width": (png(0, 40), "cannot be read as an image"),
    "BMP with damaged header": (damaged("BMP", 14), "cannot be read as an image"),
    "TIFF without directory": (damaged("TIFF", 4, count=4), "cannot be read as an image"),
    "WebP with damaged header": (damaged("WEBP", 12), "cannot be read as an image"),
    "decompression bomb": (png(60000, 60000), "is too large to be read at once"),
    "smaller decompression bomb": (png(12000, 12000), "cannot be read as an image"),
    "one pixel": (encoded.encode(pixels(50, (1, 1))), r"has \(1, 1\) pixels .* at least 32"),
    "too narrow": (encoded.encode(pixels(50, (31, 100))), r"has \(31, 100\) pixels .* at least 32"),
    "floating point": (encoded.encode(np.ones((40, 48), np.float32), "TIFF"), "floating-point pixels"),
    "more than 16 bits": (encoded.encode(np.full((40, 48), 70000, np.int32), "TIFF"), "more than 16 bits"),
    "negative": (encoded.encode(np.full((40, 48), -1, np.int32), "TIFF"), "more than 16 bits"),
    "mask on another image": (encoded.encode(pixels(50, (48, 40))), r"images/train/cat/1.png \(48, 40\)"),
}

MASKS = {
    "mask of another size": (encoded.encode(mask((41, 48))), r"has \(41, 48\) pixels .* its image .*\(40, 48\)"),
    "mask on its side": (encoded.encode(mask((48, 40))), r"has \(48, 40\) pixels .* its image .*\(40, 48\)"),
    "empty mask": (b"", r"\(it is empty\)"),
    "text for a mask": (b"no mask", "no known format"),
    "truncated mask": (encoded.encode(mask())[:-30], "cannot be read as an image"),
    "mask too large": (png(60000, 60000), "is too large to be read at once"),
    "JPEG for a mask": (encoded.encode(np.uint8(mask() * 255), "JPEG"), "is a JPEG, .* foreground='>127', or PNG"),
}

# Of train.csv, whose second row is that of BAD: what becomes of it.
ROW = f"images/{BAD},masks/{BAD},cat"
ROWS = {
    "missing image": (ROW.replace("1.png,m", "9.png,m"), "images/train/cat/9.png is missing"),
    "missing mask": (ROW.replace("1.png,cat", "9.png,cat"), "masks/train/cat/9.png is missing"),
    "folder for an image": ("images/train/cat,,cat", "images/train/cat is not a file"),
    "folder for a mask": (f"images/{BAD},masks,cat", "masks is not a file"),
    "image behind a file": (f"images/{BAD}/2.png,,cat", "1.png/2.png (is missing|cannot be read)"),
    "name too long": ("x" * 5000 + ",,cat", "cannot be read .*too long"),
    "absolute path": ("/" + ROW, r"train.csv, line 2: image '/images.* must be a path below"),
    "path to the folder above": (
        f"images/../images/{BAD},,cat",
        r"train.csv, line 2: .* must be a path below",
    ),
    "no image": (",,cat", "train.csv, line 2: the row names no image"),
    "no class": (f"images/{BAD},,", "train.csv, line 2: the row names no class"),
    "box upside down": (f"{ROW},5,30,40,10", "1.png .* boxes .* contains no pixel"),
    "box without width": (f"{ROW},5,10,5,30", "1.png .* boxes .* contains no pixel"),
    "box outside": (f"{ROW},50,0,60,10", "1.png .* boxes .* contains no pixel"),
    "box with NaN": (f"{ROW},nan,0,60,10", "train.csv, line 2: the box .* is not four numbers"),
    "endless box": (f"{ROW},0,0,inf,10", "train.csv, line 2: the box .* is not four numbers"),
    "text for a box": (f"{ROW},left,0,60,10", "train.csv, line 2: the box .* is not four numbers"),
    "half a box": (f"{ROW},5,,40,", "train.csv, line 2: the box .* is not four numbers"),
}

LISTS = {
    "too few columns": (edit("lists/train.csv", ROW, f"images/{BAD},cat"), r"train.csv, line 2: .* is not image,mask,"),
    "too many columns": (edit("lists/train.csv", ROW, f"{ROW},1"), r"train.csv, line 2: .* is not image,mask,class or"),
    "semicolons": (edit("lists/train.csv", ROW, ROW.replace(",", ";")), r"train.csv, line 2: .* is not image,mask,"),
    "unknown column": (put("lists/test.csv", b"image,class,masks\na,b,c\n"), "test.csv, line 1: .*; 'masks' must go"),
    "column twice": (put("lists/test.csv", b"image,class,image\na,b,c\n"), "test.csv, line 1: .*; 'image' must go"),
    "header only": (put("lists/test.csv", b"image,mask,class\n"), "test.csv lists no images"),
    "empty list": (put("lists/test.csv", b""), "test.csv lists no images"),
    "empty list of validation": (put("lists/valid.csv", b"\n\n"), "valid.csv lists no images. .* or delete it"),
    "Latin-1": (put("lists/test.csv", "a.png,,größe".encode("latin-1")), "test.csv is not UTF-8 text"),
    "UTF-16": (put("lists/test.csv", "a.png,,cat".encode("utf-16")), "test.csv is UTF-16"),
    "UTF-16 without mark": (put("lists/test.csv", "a.png,,cat".encode("utf-16-le")), "test.csv has NUL bytes"),
    "NUL bytes": (edit("lists/train.csv", "cat/1.png", "cat/\0.png"), "train.csv has NUL bytes"),
    "open quotation": (edit("lists/train.csv", ROW, f'"{ROW}'), "train.csv, line 6, is not a row of a CSV file"),
    "text after a quotation": (edit("lists/train.csv", ROW, f'"images"{ROW}'), "line 2, is not a row of a CSV file"),
    "image for a list": (put("lists/test.csv", encoded.encode(pixels(1))), "test.csv is not UTF-8 text"),
    "no list of tests": (remove("lists/test.csv"), r"exactly one test\*.csv, found: none"),
    "two lists of tests": (
        put("lists/more/test.csv", b""),
        r"exactly one test\*.csv, found: .*more/test.csv, .*test.csv",
    ),
    "folder for a list": (lambda f: [remove("lists/test.csv")(f), (f / "lists/test.csv").mkdir()], "found: none"),
    "one class": (
        both(*(put(f"lists/{name}.csv", f"images/{name}/cat/0.png,,cat".encode()) for name in own_layout.SPLITS)),
        "There is one class, 'cat'; at least two are needed",
    ),
    "class lost": (
        both(*(edit("lists/train.csv", f"{index}.png,cat", f"{index}.png,cat,1,2,3,x") for index in range(3))),
        "train.csv, line 3: the box .* is not four numbers",
    ),
    "class with a line break": (edit("lists/train.csv", ROW, f'images/{BAD},,"c\nt"'), r"class 'c\\nt' has a name"),
}

FOLDERS = {
    "stray file": (put("images/train/readme.txt", b"hello"), "readme.txt is outside of the class folders"),
    "stray file beside splits": (put("images/readme.txt", b"hello"), "readme.txt is not a split"),
    "nested folder": (put("images/train/cat/more/1.png", b""), "more is a folder inside that of a class"),
    "link to the folder above": (link("images/train/cat/up", ".."), "up is a folder inside that of a class"),
    "class that links to itself": (link("images/train/bird", "bird"), "bird is outside of the class folders"),
    "empty class": (lambda f: (f / "images/train/bird").mkdir(), "images/train/bird holds no images"),
    "empty class of tests": (lambda f: (f / "images/test/bird").mkdir(), "images/test/bird holds no images"),
    "no tests": (lambda f: shutil.rmtree(f / "images/test"), "images has no folder 'test'"),
    "empty split": (lambda f: [shutil.rmtree(f / "images/test"), (f / "images/test").mkdir()], "test split has no im"),
    "two folders of validation": (copy(f"images/{BAD}", "images/val/cat/1.png"), "two folders of one split"),
    "no such folder": (lambda f: shutil.rmtree(f / "images"), "source=.*images' is not a folder"),
    "file for the folder": (both(lambda f: shutil.rmtree(f / "images"), put("images", b"")), "is not a folder"),
    "no masks": (lambda f: shutil.rmtree(f / "masks"), "masks=.*masks' is not a folder"),
    "two masks of an image": (
        copy(f"masks/{BAD}", "masks/train/cat/1.bmp"),
        "1.bmp and .*1.png are masks of one image",
    ),
    "class that is no UTF-8": (rename("images/train/cat", b"images/train/c\xe4t"), r"class 'c\\xe4t' has a name that"),
    "class with a space": (rename("images/train/cat", "images/train/cat "), "class 'cat ' has a name .* space"),
    "class lost": (both(*(put(f"images/train/cat/{i}.png", b"") for i in range(3))), "train/cat/2.png cannot be read"),
    "split lost": (both(*(put(f"images/valid/{name}/0.png", b"") for name in CLASSES)), "valid/dog/0.png cannot be r"),
}

OTHERS = [
    # Lists.
    Case(
        "row twice",
        edit("lists/train.csv", ROW, f"{ROW}\n{ROW}"),
        "train.csv, line 3: .* is already in .*train.csv, line 2",
        read_lists,
        "train",
        {"train": 6},
    ),
    Case(
        "row twice, spelt otherwise",
        edit("lists/train.csv", ROW, f"{ROW}\nimages/.//{BAD},,dog"),
        "train.csv, line 3: .* is already in .*train.csv, line 2",
        read_lists,
        "train",
        {"train": 6},
    ),
    Case(
        "row in two splits",
        edit("lists/test.csv", "images", f"{ROW}\nimages"),
        "train.csv, line 2: .* is already in .*test.csv, line 1",
        read_lists,
        "train",
        {"train": 5, "test": 5},
    ),
    Case(
        "row that trains and validates",
        edit("lists/valid.csv", "images", f"{ROW}\nimages"),
        "train.csv, line 2: .* is already in .*valid.csv, line 1",
        read_lists,
        "train",
        {"train": 5, "validation": 3},
    ),
    Case(
        "row of an unknown class",
        edit("lists/test.csv", ",cat", ",bird"),
        "test/cat/0.png: the class 'bird' has no training image",
        read_lists,
        "test",
        {"train": 6, "test": 3},
    ),
    Case(
        "link that leads out",
        both(link(f"images/{BAD}", "nowhere.png")),
        "1.png is a link to a file that is missing",
        read_lists,
        "train",
    ),
    # Folders.
    Case(
        "class that only tests",
        put("images/test/bird/1.png", encoded.encode(pixels(60))),
        "bird/1.png: the class 'bird' has no training image",
        read_folders,
        "test",
        {"train": 6},
    ),
    Case(
        "copy in two splits",
        copy(f"images/{BAD}", "images/test/cat/9.png"),
        f"{BAD} is the same image as .*test/cat/9.png of the test split",
        read_folders,
        "train",
        {"test": 5},
    ),
    Case(
        "copy that trains and validates, of another class",
        copy(f"images/{BAD}", "images/valid/dog/9.png"),
        f"{BAD} is the same image as .*valid/dog/9.png of the validation split",
        read_folders,
        "train",
        {"validation": 3},
    ),
    Case(
        "copy that tests and validates",
        copy("images/valid/cat/0.png", "images/test/cat/9.png"),
        "valid/cat/0.png is the same image as .*test/cat/9.png of the test split",
        read_folders,
        "validation",
        {"train": 6, "validation": 1, "test": 5},
    ),
    Case(
        "same pixels in TIFF and BMP",
        both(
            put(f"images/{BAD}", encoded.encode(pixels(60), "TIFF")),
            put("images/test/cat/9.bmp", encoded.encode(pixels(60), "BMP")),
        ),
        f"{BAD} is the same image as .*test/cat/9.bmp",
        read_folders,
        "train",
        {"test": 5},
    ),
    Case(
        "name that is no UTF-8",
        rename(f"images/{BAD}", b"images/train/cat/gr\xf6\xdfe.png"),
        r"cat/gr\\xf6\\xdfe.png has a name that is not UTF-8. Rename it",
        read_folders,
        "train",
    ),
    Case(
        "text beside images",
        put("images/train/cat/notes.jpg", b"hello"),
        "notes.jpg cannot be read as an image",
        read_folders,
        "train",
        {"train": 6},
    ),
    Case(
        "link to itself", link(f"images/{BAD}", "1.png"), "1.png (is a link to|cannot be read)", read_folders, "train"
    ),
    Case(
        "pipe",
        both(remove(f"images/{BAD}"), lambda root: os.mkfifo(root / "images" / BAD)),
        "1.png is not a file",
        read_folders,
        "train",
    ),
    Case(
        "folder for a mask of a class",
        both(remove(f"masks/{BAD}"), put("masks/train/cat/1/x.png", b"")),
        "masks/train/cat/1 is not a file",
        read_folders,
        "train",
    ),
    # Tiles.
    Case(
        "no tissue",
        put(f"images/{BAD}", encoded.encode(np.full((40, 48, 3), 200, np.uint8))),
        "1.png: none of its 4 tiles has tissue",
        read_tiles,
        "train",
        NUM_TILES_KEPT,
    ),
    Case(
        "too small for its tiles",
        put(f"images/{BAD}", encoded.encode(pixels(50, (31, 37)))),
        r"1.png has \(31, 37\) pixels .* tile_scale=1;",
        read_tiles,
        "train",
        NUM_TILES_KEPT,
    ),
    Case(
        "truncated slide",
        put(f"images/{BAD}", half("TIFF")),
        "1.png cannot be read as",
        read_tiles,
        "train",
        NUM_TILES_KEPT,
    ),
    Case(
        "mask of another shape",
        put(f"masks/{BAD}", encoded.encode(mask((48, 40)))),
        "the shapes differ",
        read_tiles,
        "train",
        NUM_TILES_KEPT,
    ),
    Case(
        "copy of a slide",
        copy(f"images/{BAD}", "images/test/cat/9.png"),
        "is the same image as",
        read_tiles,
        "train",
        NUM_TILES_KEPT | {"test": 20},
    ),
]

CASES = [
    *(
        Case(name, put(f"images/{BAD}", content), f"train/cat/1.png.* ?{message}", read_folders, "train")
        for name, (content, message) in IMAGES.items()
    ),
    *(
        Case(name, put(f"masks/{BAD}", content), f"masks/train/cat/1.png.* ?{message}", read_folders, "train")
        for name, (content, message) in MASKS.items()
    ),
    *(
        Case(name, edit("lists/train.csv", ROW, row), message, read_lists, "train")
        for name, (row, message) in ROWS.items()
    ),
    *(Case(f"lists: {name}", spoil, message, read_lists) for name, (spoil, message) in LISTS.items()),
    *(Case(f"folders: {name}", spoil, message, read_folders) for name, (spoil, message) in FOLDERS.items()),
    *OTHERS,
]
