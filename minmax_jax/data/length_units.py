"""Units of length as microscope files name them."""

import re
import unicodedata

_EXPONENTS = {
    **{"Y": 24, "Z": 21, "E": 18, "P": 15, "T": 12, "G": 9, "M": 6, "k": 3, "h": 2, "da": 1, "": 0},
    **{"d": -1, "c": -2, "m": -3, "μ": -6, "n": -9, "p": -12, "f": -15, "a": -18, "z": -21, "y": -24},
}
_INCH = 25400.0
# UnitsLength of the OME schema 2016-06, in microns; "pixel" and "reference frame" are no lengths.
_OME = {
    **{f"{prefix}m": 10.0 ** (exponent + 6) for prefix, exponent in _EXPONENTS.items()},
    **{"Å": 1e-4, "thou": _INCH / 1000, "li": _INCH / 12, "in": _INCH, "ft": 12 * _INCH, "yd": 36 * _INCH},
    **{"mi": 63360 * _INCH, "pt": _INCH / 72, "ua": 149597870700e6, "ly": 9460730472580800e6},
    "pc": 3.0856775814913673e22,
}
# What people and programs write, in lower case, without a final s.
_FREE = {
    **dict.fromkeys(("micron", "um", "μm", "micrometer", "micrometre", "mikron", "μ"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("å", "angstrom", "ångström"), 1e-4),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("in", "inch", "inche", '"'), _INCH),
}


def in_microns(unit: str) -> float | None:
    """Microns in a unit of length; None for what is none, such as "pixel".

    Args:
        unit: of the OME schema, or as ImageJ and its users write it: "micron", "um", "µm" with either of the two
            characters, also escaped as "\\u00B5m"; "inch", "cm" and others.
    """
    unit = re.sub(r"\\+u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), unit)
    # U+00B5 becomes U+03BC; "Â" is what UTF-8 leaves of it where it was read as Latin-1.
    unit = unicodedata.normalize("NFKC", unit).strip().replace("Âμ", "μ")
    return _OME.get(unit) or _FREE.get(unit.lower()) or _FREE.get(unit.lower().removesuffix("s"))
