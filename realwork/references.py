"""References to environment variables in texts of the user: `${NAME}`, and `$${NAME}` for the text itself."""

import re
from collections.abc import Mapping

REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
REFERENCE_OR_ESCAPE = re.compile(rf"\$\$\{{|{REFERENCE.pattern}")


def replace_references(text: str, environ: Mapping[str, str]) -> tuple[str, list[str]]:
    """`text` with its references replaced, and the names of those that are not set."""
    unset: list[str] = []

    def value_of(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return "${"
        if name not in environ:
            unset.append(name)
        return environ.get(name, "")

    return REFERENCE_OR_ESCAPE.sub(value_of, text), unset
