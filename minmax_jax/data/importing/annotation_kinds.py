"""Which program wrote an annotation file, by its content; files of other kinds are named for what they are."""

import functools
import gzip
import json
import pathlib
from typing import Any
from xml.etree import ElementTree
import zlib

from minmax_jax.base.errors import OptionError
from minmax_jax.data import dataset, raw_files
from minmax_jax.data.importing import (
    annotation_entries,
    coco_annotations,
    geojson_annotations,
    labelme_annotations,
    regions,
    voc_annotations,
)

# Longer ones first: of a.geojson.gz, the image is a.
ENDINGS = (".geojson.gz", ".json.gz", ".geojson", ".json", ".xml")
READ = "COCO JSON, GeoJSON of QuPath, labelme JSON and Pascal VOC XML"
_AS_COCO = "Export it as COCO"
_MAX_BYTES = 4 << 30  # of a file that is unpacked


def read(path: pathlib.Path, place: pathlib.PurePath) -> list[annotation_entries.Entry]:
    """What a file says of each image that it is about.

    Args:
        path: of the file.
        place: its path below the folder of all annotations.

    Raises:
        OptionError: if it is of a kind that is not read.
        DataError: if it is damaged.
    """
    content = _load(path)
    if isinstance(content, dict) and isinstance(content.get("images"), list) and _is_coco(content):
        entries = coco_annotations.read(content, path)
        return [_below(entry, place.parent) for entry in entries]
    parse, name = _one_image(content)
    if parse is None:
        raise OptionError(f"annotations={str(path)!r} is {_describe(content)}. {READ} are read.")
    own = place.with_name(without_ending(place.name)).as_posix()
    return [annotation_entries.of_drawing(path, (own, name) if name else (own,), functools.partial(_reread, path))]


def _is_coco(content: dict[str, Any]) -> bool:
    annotations = content.get("annotations")
    if not isinstance(annotations, list):
        return False
    return not annotations or (isinstance(annotations[0], dict) and "category_id" in annotations[0])


def _below(entry: annotation_entries.Entry, folder: pathlib.PurePath) -> annotation_entries.Entry:
    """The entry whose image's path begins with the folder of the file, which may be that of the split."""
    name = entry.names[0].replace("\\", "/")
    return annotation_entries.Entry(entry.path, ((folder / name).as_posix(),), entry.parse, entry.categories)


def _one_image(content: Any):
    """The function that parses a file about one image, None if it is none, and the name that it has for the image."""
    if isinstance(content, ElementTree.Element):
        is_voc = voc_annotations.is_voc(content)
        return (voc_annotations.parse, voc_annotations.image_name(content)) if is_voc else (None, "")
    if geojson_annotations.is_geojson(content):
        return geojson_annotations.parse, ""
    if labelme_annotations.is_labelme(content):
        return labelme_annotations.parse, labelme_annotations.image_name(content)
    return None, ""


def _reread(path: pathlib.Path) -> regions.Drawing:
    content = _load(path)
    return _one_image(content)[0](content, path)


def without_ending(name: str) -> str:
    """The name of a file without the ending of annotations, or as it is."""
    ending = next((ending for ending in ENDINGS if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)]


def _load(path: pathlib.Path) -> Any:
    """JSON, or the root of XML.

    Raises:
        OptionError: for a file that is neither.
        DataError: for one that is damaged.
    """
    text = _read_text(path)
    start = text.lstrip()[:1]
    try:
        if start == "<":
            return ElementTree.fromstring(text)
        if start in ("{", "["):
            return json.loads(text)
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            raise OptionError(
                f"annotations={str(path)!r} has several JSON values, one a line. {READ} are read."
            ) from error
        raise dataset.DataError(f"{path} is damaged ({error}). Export it again.") from error
    if not text.strip():
        raise dataset.DataError(f"{path} is empty. Export it again.")
    raise OptionError(f"annotations={str(path)!r} is {_describe_text(text)}. {READ} are read.")


def _read_text(path: pathlib.Path) -> str:
    content = raw_files.read_file(path)
    if content[:2] == b"\x1f\x8b":
        try:
            with gzip.open(path) as file:
                content = file.read(_MAX_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise dataset.DataError(f"{path} is damaged ({error}). Export it again.") from error
        if len(content) > _MAX_BYTES:
            raise dataset.DataError(f"{path} has more than {_MAX_BYTES >> 30} GiB unpacked. Divide it.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = "is no text; masks are given by masks" if b"\0" in content[:1000] else f"is not UTF-8 text ({error})"
        raise OptionError(f"annotations={str(path)!r} {what}. {READ} are read.") from error


def _describe(content: Any) -> str:
    """What a file is, and how to get one that is read."""
    if isinstance(content, ElementTree.Element):
        return _describe_xml(content)
    if isinstance(content, list):
        return _describe_list(content)
    rows = next((row for row in content.values() if isinstance(row, dict)), {})
    annotations = content.get("annotations")
    first = annotations[0] if isinstance(annotations, list) and annotations else {}
    first = first if isinstance(first, dict) else {}
    for is_it, what in (
        (content.get("type") == "Topology", "TopoJSON of a map: pixels of the image are needed"),
        ("_via_img_metadata" in content, f"a project of the VGG Image Annotator. {_AS_COCO} (Annotation, Export)"),
        ("regions" in rows and "filename" in rows, f"JSON of the VGG Image Annotator. {_AS_COCO}"),
        ("segments_info" in first, "COCO panoptic: its PNG files are the masks (masks, instances)"),
        ("caption" in first, "COCO captions. The file of instances is needed"),
        ("images" in content and annotations is None, "a COCO file without annotations"),
        ("objects" in content and "size" in content, f"JSON of Supervisely. {_AS_COCO}"),
        ("image_id" in first, "a COCO file whose annotations have no category_id"),
    ):
        if is_it:
            return what
    return f"JSON of an unknown kind (it has {', '.join(map(repr, list(content)[:5])) or 'nothing'})"


def _describe_list(content: list[Any]) -> str:
    first = content[0] if content and isinstance(content[0], dict) else {}
    if {"image_id", "category_id", "score"} <= first.keys():
        return (
            "a list of COCO results, which are predictions. The file with images, annotations and categories is needed"
        )
    if "annotations" in first and "data" in first:
        return f"a list of Label Studio. {_AS_COCO}"
    if "image" in first and "annotations" in first:
        return f"JSON of Create ML. {_AS_COCO}"
    if {"image_id", "category_id"} <= first.keys():
        return "the annotations of a COCO file without its images and categories"
    return f"a JSON list of an unknown kind (its first row is {str(content[0])[:60] if content else 'missing'})"


def _describe_xml(root: ElementTree.Element) -> str:
    if root.tag == "annotations" and root.find("image") is not None:
        return f"XML of CVAT. {_AS_COCO} 1.0"
    if root.tag in ("ASAP_Annotations", "Annotations"):
        program = "ASAP" if root.tag.startswith("ASAP") else "ImageScope or HALO"
        return f"XML of {program}. Import it into QuPath and export GeoJSON"
    if root.find("object/polygon") is not None:
        return f"XML with polygons, of the old LabelMe. {_AS_COCO}"
    return f"XML of an unknown kind (its root is {root.tag!r})"


def _describe_text(text: str) -> str:
    fields = text.split("\n", 1)[0].split()
    try:
        numbers = [float(field) for field in fields]
    except ValueError:
        numbers = []
    if len(numbers) >= 5 and all(0 <= number <= 1 for number in numbers[1:]):
        return f"text of YOLO. {_AS_COCO}, or convert it"
    if "," in text.split("\n", 1)[0]:
        return "a table. Boxes are given by the columns left,top,right,bottom of --dataset=csv"
    return "no JSON and no XML"
