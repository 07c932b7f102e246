"""The settings table of README.md, made from the code: `python docs/settings_table.py`."""

import sys

from tus_server.settings.table import settings_table


def render_settings_table() -> str:
    """Render one Markdown table; tests/unit/test_settings.py compares README.md with it."""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    lines += [f"| `{row.name}` | {row.default} | {row.description} |" for row in settings_table()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render_settings_table())
