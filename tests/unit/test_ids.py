import pytest
from hypothesis import given
from hypothesis import strategies as st

from tus_server.core.ids import UploadId, find_upload_id, new_upload_id, random_part

SOME = "0123456789abcdef0123456789abcdef"


def test_a_new_id_has_the_form_of_one() -> None:
    made = new_upload_id()

    assert find_upload_id(made) == made
    assert len(made) == 32  # 128 random bits


def test_a_new_id_carries_the_label_of_its_node() -> None:
    made = new_upload_id("node-7")

    assert made.endswith(".node-7")
    assert find_upload_id(made) == made
    assert random_part(made) == made.removesuffix(".node-7")


def test_ids_do_not_repeat() -> None:
    assert len({new_upload_id() for _ in range(10_000)}) == 10_000


@pytest.mark.parametrize("text", [SOME, f"{SOME}.a", f"{SOME}.0-9", f"{SOME}.{'x' * 16}"])
def test_what_has_the_form_of_an_id_is_one(text: str) -> None:
    assert find_upload_id(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        SOME[:-1],
        SOME + "0",
        SOME.upper(),
        SOME.replace("0", "g"),
        SOME.replace("0", "\u0660"),  # an Arabic digit
        f"{SOME}\n",
        f" {SOME}",
        f"{SOME}.",
        f"{SOME}..a",
        f"{SOME}.A",
        f"{SOME}.a_b",
        f"{SOME}.{'x' * 17}",
        f"{SOME}.a.b",
        f"{SOME}/",
        f"../{SOME}",
        f"{SOME}/../{SOME}",
        f"{SOME}\0",
        "%2e%2e",
        "..",
        "a" * 100_000,
    ],
)
def test_anything_else_is_none(text: str) -> None:
    assert find_upload_id(text) is None


@given(st.text() | st.from_regex(r"[0-9a-f]{32}.*"))
def test_an_id_never_has_a_character_that_means_something_in_a_path(text: str) -> None:
    found = find_upload_id(text)

    assert found is None or (
        found.isascii() and not set(found) & set("/\\%\0\n ") and found == text
    )


def test_object_keys_do_not_depend_on_the_label() -> None:
    assert random_part(UploadId(f"{SOME}.node")) == random_part(UploadId(SOME)) == SOME
