"""Values that several test modules send."""

# tus numbers are ASCII `0|[1-9][0-9]{0,18}` and nothing else; int() takes many of these.
BAD_NUMBERS: list[str | bytes | list[str]] = [
    "",
    "-1",
    "-0",
    "+5",
    "1.5",
    "1e3",
    "abc",
    "0x10",
    "05",
    "00",
    "1_000",
    "5 5",
    "5;q=1",
    "5,5",
    "9" * 20,
    "9" * 5000,
    "\u00b2",
    "\u0663".encode(),  # ARABIC-INDIC DIGIT THREE
    ["5", "5"],
    ["5", "6"],
]


def shown(value: object) -> str:
    """Give a short test id for a value."""
    text = repr(value)
    return text if len(text) <= 24 else f"{text[:20]}..{len(text)}"


UNKNOWN_ID = "0123456789abcdef0123456789abcdef"
UNKNOWN = f"/files/{UNKNOWN_ID}"
MAX_SIZE = 2**53 - 1
