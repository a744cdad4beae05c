"""Pages: generated ones are up to date, links lead somewhere, modules and fields that they name exist."""

import importlib.util
import re

from minmax_jax.configs import common
import pytest

from minmax_jax.runs.building import fields
from tests import messages, programs

PAGES = sorted([*programs.ROOT.glob("*.md"), *(programs.ROOT / "docs").rglob("*.md")])
_FIELDS = set(fields.flatten(common.get_config()))
_GROUPS = {name.rpartition(".")[0] for name in _FIELDS}


def _generator():
    spec = importlib.util.spec_from_file_location("generate_configs", programs.ROOT / "docs" / "generate_configs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_configurations_is_up_to_date_and_complete():
    generator = _generator()
    assert generator.PAGE.read_text() == generator.page()
    listed = {f"{prefix}{name}" for prefix, (_, fields) in generator.groups().items() for name, _, _ in fields}
    assert listed == _FIELDS


# Words that send the reader to another row, and what says only where a value comes from.
_LEANING = re.compile(
    r"(the same|as|see|again|both|its|their|of|that|those|an epoch|also|likewise)\b|.*\bthe same\b", re.I
)
_SOURCE = re.compile(r"\b(published|follow-up)\b[^;.]*")
# Each row of the page is looked up alone: its description names what the field is.
_DESCRIPTIONS = {
    f"{prefix}{name}": text for prefix, (_, fields) in _generator().groups().items() for name, _, text in fields
}


def _stands_alone(description):
    return not _LEANING.match(description) and len(_SOURCE.sub("", description).split()) >= 2


@pytest.mark.parametrize("field", _DESCRIPTIONS)
def test_the_description_of_a_field_stands_alone(field):
    assert _stands_alone(_DESCRIPTIONS[field]), _DESCRIPTIONS[field]


@pytest.mark.parametrize(
    "description",
    [
        *("as brightness", "the same, top to bottom", "see whole_weight", "published", "pixels", "follow-up: 0.2"),
        *("of Adam", "its threshold, first epoch", "Of H&E images: none", "weight of the same term", ""),
    ],
)
def test_a_description_that_needs_its_neighbour_is_refused(description):
    assert not _stands_alone(description)


def _anchors(text):
    """Names of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(programs.ROOT).as_posix())
def test_links_and_files_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text):
        assert anchor in _anchors((page.parent / target if target else page).read_text()), (target, anchor)
    for name in re.findall(r"`((?:minmax_jax|configs|experiments|tests|benchmarks|docs)/[\w./]+\.\w+)`", text):
        assert (programs.ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(programs.ROOT).as_posix())
def test_fields_of_configurations_exist(page):
    if "notes" in page.parts or page.name == "CHANGELOG.md":
        return  # history
    for name in re.findall(r"config\.((?:[a-z_]+\.)+[a-z_]+)\b(?!\()", page.read_text()):
        assert name in _FIELDS | _GROUPS or name.startswith(("data.num_",)), name


def test_pages_stay_short():
    lengths = {page.name: len(page.read_text().splitlines()) for page in PAGES}
    assert (
        max(lengths["performance.md"], lengths["steps.md"]) <= 120
        and lengths["README.md"] <= 190
        and lengths["data.md"] <= 230
    )


_HEADINGS = re.findall(r"^### (.*)$", (programs.ROOT / "docs" / "troubleshooting.md").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("heading", _HEADINGS)
def test_headings_of_troubleshooting_are_messages_as_they_are_printed(heading):
    """So that who searches the page for a message finds it."""
    message = heading.removeprefix("`").removesuffix("`")
    assert heading == f"`{message}`" and sum(len(part.strip()) for part in message.split(messages.GAP)) >= 8
    assert messages.is_printed(message)


def test_a_message_that_nothing_prints_is_not_found():
    assert messages.is_printed("--workdir=... has another configuration:")
    assert not messages.is_printed("--workdir=... has another colour:")
    assert not messages.is_printed("has another configuration: ... --workdir=")
    assert len(_HEADINGS) == len(set(_HEADINGS)) > 20
