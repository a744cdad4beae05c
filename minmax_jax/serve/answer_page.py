"""The answer as a page, for browsers without scripts: what they send is a form, and they show what comes back."""

from collections.abc import Mapping
from typing import Any

import jinja2

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader(__package__, "."), autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
)
_MAX_CLASSES = 5


def render(run: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    """A page of HTML.

    Args:
        run: facts about the run.
        answer: as of `answers.predict`, or {"error": text}.
    """
    best = sorted(answer.get("probabilities", {}).items(), key=lambda item: -item[1])[:_MAX_CLASSES]
    return _ENVIRONMENT.get_template("answer.html.jinja").render(run=run, answer=answer, best=best)
