"""Files that are not read as images: what they are, by content or ending, and what to do about them."""

import pathlib
import re

# Beginnings of files of formats that no reader here knows, at their place.
_SIGNATURES = (
    (4, rb"ftyp(hei[cxs]|hev[cxms]|mif1|msf1)", "HEIC"),
    (0, rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL"),
    (0, rb"v/1\x01", "EXR"),
    (0, rb"#\?(RADIANCE|RGBE)", "Radiance HDR"),
    (0, rb"(II|MM)\xbc", "JPEG XR"),
    (0, rb"ZISRAWFILE", "CZI"),
    (0, rb"\xda\xce\xbe\x0a|\0\0\0\x0cjP  \r\n\x87\n.{4,64}nd2", "ND2"),
    (128, rb"DICM", "DICOM other than a whole slide"),
)
# Formats that Pillow recognises without reading their pixels, or by starting another program.
RECOGNIZED_ONLY = ("BUFR", "GRIB", "HDF5", "WMF", "EMF", "MPEG", "EPS", "PDF")
# Endings of pictures that are not read, and of what is found next to images.
_NOT_READ = (".heic", ".heif", ".hif", ".svg", ".pdf", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".mp4")
_NOT_READ += (".mov", ".jxl", ".jxr", ".exr", ".hdr", ".czi", ".nd2", ".lif", ".oib", ".oif", ".vsi", ".eps", ".ps")
_NO_IMAGES = (".txt", ".xml", ".json", ".csv", ".yaml", ".yml", ".md", ".html", ".zip", ".tar", ".gz", ".npy", ".mat")
# What decoders say of files that are intact.
_OF_INTACT = re.compile("unsupported|not supported|unknown|cannot handle|not implemented|no loader|not available", re.I)
_CONVERT = "is not read: convert it to JPEG or PNG."
_INTACT = "Replace it by an intact copy."


def advice(content: bytes, name: str) -> str:
    """What to do about a file that no reader recognises."""
    if kind := name_format(content):
        return f"{kind} {_CONVERT}"
    ending = pathlib.PurePath(name).suffix.lower()
    if ending == ".dcm":
        return "DICOM is read only as a whole slide, by OpenSlide: convert other files to PNG or TIFF."
    if ending in _NOT_READ:
        return f"{ending[1:].upper()} {_CONVERT}"
    if ending in _NO_IMAGES:
        return "It is no image: move it to another folder."
    return _INTACT


def refusal(kind: str) -> str:
    """What to do about a file of a format that is recognised and not read."""
    return f"{kind} {_CONVERT}"


def advice_for(error: Exception) -> str:
    """What to do about a file whose decoder failed."""
    if _OF_INTACT.search(str(error)):
        return "It may be intact, of a kind that is not read: save it as PNG, JPEG or uncompressed TIFF."
    return _INTACT


def name_format(content: bytes) -> str:
    """The format of a file that is not read, by its content; "" if it is not known."""
    for place, pattern, kind in _SIGNATURES:
        if re.match(pattern, content[place : place + 80], re.DOTALL):
            return kind
    return _name_jpeg(content) if content[:3] == b"\xff\xd8\xff" else ""


def _name_jpeg(content: bytes) -> str:
    """Kinds of JPEG that Pillow does not decode; "" for all others."""
    place = 2
    while place + 5 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xF7:
            return "JPEG-LS"
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            precision = content[place + 4]
            return "Lossless JPEG" if marker == 0xC3 else f"JPEG of {precision} bits" if precision > 8 else ""
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return ""
