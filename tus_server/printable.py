"""Text from outside, made safe for a terminal, a log line and a table."""


def printable(text: str) -> str:
    """Escape what is not printable: control and format characters, line ends, lone surrogates."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
