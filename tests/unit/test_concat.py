from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tus_server.core.errors import MalformedHeader
from tus_server.core.ids import new_upload_id
from tus_server.wire.concat import MAX_MEMBERS, parse_concat, resolve

ID = "0123456789abcdef0123456789abcdef"
ON_NODE = f"{ID}.node-1"

# --- Upload-Concat


def test_a_partial_upload_has_no_members() -> None:
    assert parse_concat("partial") is None


def test_the_members_of_a_final_upload_keep_their_order_and_repetitions() -> None:
    """T101, T102, T107."""
    assert parse_concat("final;/b /a http://h/files/b /b") == (
        "/b",
        "/a",
        "http://h/files/b",
        "/b",
    )


def test_more_than_one_space_between_members_is_one() -> None:
    assert parse_concat("final; /a  /b ") == ("/a", "/b")


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "Partial",
        "PARTIAL",
        "partial;",
        "partial /a",
        "final",
        "final;",
        "final; ",
        "final /a",
        "Final;/a",
        "final:/a",
        "finals;/a",
        "final;/a\t/b",
        "final;/a\x00",
        "final;/a\x7f",
        "final;/\xe4",
        "1",
    ],
)
def test_nothing_else_is_allowed(raw: str) -> None:
    """T115: nor what no reply could carry back (T113)."""
    with pytest.raises(MalformedHeader, match="Upload-Concat") as caught:
        parse_concat(raw)

    assert caught.value.detail.isprintable()


def test_members_are_counted() -> None:
    """T115."""
    most = parse_concat("final;" + "/a " * MAX_MEMBERS)

    assert most is not None
    assert len(most) == 1000
    with pytest.raises(MalformedHeader, match="1001 uploads; at most 1000"):
        parse_concat("final;" + "/a " * (MAX_MEMBERS + 1))


@given(st.text(st.characters(max_codepoint=255), max_size=30).map("final;".__add__))
def test_any_value_gives_members_or_a_printable_error(raw: str) -> None:
    try:
        members = parse_concat(raw)
    except MalformedHeader as error:
        shown = error.detail
    else:
        assert members
        shown = "".join(members)

    assert shown.isprintable()


# --- URLs


@pytest.mark.parametrize(
    "url",
    [
        f"/files/{ID}",
        f"/files/{ID}/",
        f"http://files.example.com/files/{ID}",
        f"https://files.example.com:8443/files/{ID}/",
        f"HTTP://other.example.net/files/{ID}",
        f"http://[::1]:8080/files/{ID}",
        f"//files.example.com/files/{ID}",
        ID,
        f"./{ID}",
        f"../files/{ID}",
        f"/files/../files/{ID}",
        f"/%66iles/{ID}",
        f"/files/%30{ID[1:]}",
        f"/files%2F{ID}",
        f"/files/{ID}?token=x",
        f"/files/{ID}#part",
    ],
)
def test_a_url_is_resolved_by_its_path(url: str) -> None:
    """T114."""
    assert resolve(url, "/files/") == ID


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/",
        "/files",
        "/files/",
        "//",
        f"/{ID}",
        f"/other/{ID}",
        f"/Files/{ID}",
        f"/filesx/{ID}",
        f"/files/x/{ID}",
        f"/files/{ID}/x",
        f"/files/{ID}//",
        f"/files//{ID}",
        f"/files/%2e%2e/files/{ID}",
        f"/files/{ID.upper()}",
        f"/files/{ID}x",
        f"/files/{ID}%00",
        f"/files/%C3%A4{ID}",
        f"/files/%ff{ID}",
        f"?{ID}",
        f"#{ID}",
        f"http://[broken/files/{ID}",
        f"http://a]/files/{ID}",
        f"mailto:{ID}",
        f"http:{ID}",
    ],
)
def test_any_other_url_names_no_upload_of_ours(url: str) -> None:
    """T115."""
    assert resolve(url, "/files/") is None


def test_uploads_may_be_at_the_root_below_another_application_or_on_a_node() -> None:
    assert resolve(f"/{ID}", "/") == ID
    assert resolve(ID, "/") == ID
    assert resolve(f"/api/v1/files/{ID}", "/api/v1/files/") == ID
    assert resolve(f"/files/{ID}", "/api/files/") is None
    assert resolve(f"http://h/files/{ON_NODE}", "/files/") == ON_NODE


def test_a_path_that_only_clients_see_is_taken_away() -> None:
    """T114: the public URL of the server may have one."""
    for url in (f"https://h/up/files/{ID}", f"/files/{ID}", ID):
        assert resolve(url, "/files/", public_path="/up") == ID
    assert resolve(f"https://h/up/files/{ID}", "/files/") is None
    assert resolve(f"https://h/upx/files/{ID}", "/files/", public_path="/up") is None


@given(
    st.sampled_from(["", "//h", "http://h", "https://h:1"]),
    st.sampled_from(["/", "/files/", "/a b/\u00e4/"]),
    st.sampled_from([None, "node-1"]),
    st.booleans(),
)
def test_every_url_we_give_is_resolved(
    origin: str, base: str, label: str | None, slash: bool
) -> None:
    upload_id = new_upload_id(label)
    url = f"{origin}{quote(base)}{upload_id}{'/' if slash else ''}"

    assert resolve(url, base) == upload_id


@given(st.text(max_size=60))
def test_no_url_is_too_strange(url: str) -> None:
    assert resolve(url, "/files/") in (None, url.strip("/"))
