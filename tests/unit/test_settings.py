"""Settings: where they come from, what is refused and with which words."""

import os
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tus_server.core.errors import SettingsInvalid
from tus_server.core.upload import MAX_ANNOUNCED_INTEGER
from tus_server.settings import Settings, idle_settings, load_settings, unknown_environment
from tus_server.settings.table import settings_table

REPOSITORY = Path(__file__).parents[2]
MIB = 1024 * 1024
POSTGRES = "postgresql://me:s3cret@db/tus"
S3 = "s3://bucket/prefix"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith("TUS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def refusal(**flags: Any) -> str:
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(**flags)
    return str(caught.value)


# --- where a value comes from


def test_nothing_needs_to_be_configured(tmp_path: Path) -> None:
    settings = load_settings()

    assert (settings.host, settings.port, settings.base_path) == ("127.0.0.1", 8080, "/files/")
    assert settings.data_dir == Path("./tus-data")
    assert settings.state_path == tmp_path / "tus-data" / "state.db"
    assert settings.store_path == tmp_path / "tus-data"
    assert settings.max_size is settings.max_append_size is None
    assert settings.origins == ("*",)
    assert settings.proxies == ()
    assert settings.buffer_bytes == 128 * MIB
    assert settings.part_size == 32 * MIB
    assert not settings.uses_postgres
    assert not settings.uses_s3
    assert (settings.workers, settings.tail_policy, settings.node_name) == (1, "strict", None)
    assert settings.max_header_bytes == 32 * 1024
    assert (settings.expires_after_s, settings.expires_at_most_s) == (7 * 86400, None)
    assert (settings.keep_finished_s, settings.keep_partials) == (None, False)
    assert settings.body_idle_timeout_s == 60.0
    assert (settings.durability, settings.downloads, settings.body_path) == (
        "full",
        "proxy",
        "auto",
    )


def test_a_flag_wins_over_the_environment_which_wins_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tus-server.toml").write_text('port = 1\nhost = "::1"\nlog_level = "error"\n')
    monkeypatch.setenv("TUS_PORT", "2")
    monkeypatch.setenv("TUS_HOST", "localhost")

    settings = load_settings(port=3)

    assert (settings.port, settings.host, settings.log_level) == (3, "localhost", "error")


def test_a_flag_that_is_none_was_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUS_PORT", "2")

    assert load_settings(port=None).port == 2


@pytest.mark.parametrize("how", ["flag", "environment", "init"])
def test_the_file_can_be_named(how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text("port = 9\n")
    (tmp_path / "tus-server.toml").write_text("port = 1\n")
    if how == "environment":
        monkeypatch.setenv("TUS_CONFIG", str(file))

    if how == "init":
        settings = Settings(config=file)
    else:
        settings = load_settings(file if how == "flag" else None)

    assert settings.port == 9


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load_settings().port = 1


@pytest.mark.parametrize("text", ["10.0.0.0/8, unix", '["10.0.0.0/8", "unix"]'])
def test_lists_are_comma_text_or_arrays(text: str, tmp_path: Path) -> None:
    (tmp_path / "tus-server.toml").write_text(
        f"behind_proxy = {text}\n" if text.startswith("[") else f'behind_proxy = "{text}"\n'
    )

    assert load_settings().proxies == ("10.0.0.0/8", "unix")


def test_a_list_can_be_emptied_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUS_CORS_ORIGINS", "")

    assert load_settings().origins == ()


# --- what a value becomes


@pytest.mark.parametrize(
    ("text", "size"), [("10 GiB", 10 * 1024 * MIB), ("1GB", 10**9), ("123", 123), ("", None)]
)
def test_sizes_have_units(text: str, size: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUS_MAX_SIZE", text)

    assert load_settings().max_size == size


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("files", "/files/"),
        ("/files", "/files/"),
        ("/a/b.c/", "/a/b.c/"),
        ("/", "/"),
        ("", "/"),
    ],
)
def test_the_base_path_starts_and_ends_with_a_slash(given: str, path: str) -> None:
    assert load_settings(base_path=given).base_path == path


@pytest.mark.parametrize(
    ("given", "host"),
    [("::", "::"), ("[::1]", "::1"), ("fe80::1%lo", "fe80::1%lo"), ("a.example", "a.example")],
)
def test_hosts_are_addresses_or_names(given: str, host: str) -> None:
    assert load_settings(host=given).host == host


def test_the_public_url_has_no_slash_at_its_end() -> None:
    assert load_settings(public_url="https://f.example/up/").public_url == "https://f.example/up"


def test_urls_of_state_and_store_are_relative_or_absolute(tmp_path: Path) -> None:
    relative = load_settings(state_url="sqlite:///x/s.db", store_url="file:x")
    absolute = load_settings(state_url="sqlite:////x/s.db", store_url="file:///a%20b")

    assert (relative.state_path, relative.store_path) == (tmp_path / "x/s.db", tmp_path / "x")
    assert (absolute.state_path, absolute.store_path) == (Path("/x/s.db"), Path("/a b"))


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert load_settings(data_dir="~/tus").data_dir == tmp_path / "tus"


# --- what is refused


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("host", "http://localhost"),
        ("host", "localhost:80"),
        ("host", ""),
        ("port", "http"),
        ("port", "65536"),
        ("port", "-1"),
        ("port", ""),
        ("base_path", "/a b/"),
        ("base_path", "/a//b/"),
        ("base_path", "/../"),
        ("base_path", "/a?b/"),
        ("public_url", "files.example.com"),
        ("public_url", "ftp://files.example.com"),
        ("public_url", "https://"),
        ("public_url", "https://files.example.com/#a"),
        ("public_url", "https://files.example.com:99999"),
        ("data_dir", ""),
        ("data_dir", "a\0b"),
        ("state_url", "sqlite://"),
        ("state_url", "sqlite:///"),
        ("state_url", "sqlite:///:memory:"),
        ("state_url", "sqlite://host/x.db"),
        ("state_url", "/x.db"),
        ("state_url", "postgresql://db/tus"),  # without an S3 store
        ("state_url", "postgresql:me:secret"),
        ("state_url", "postgresql+asyncpg://db/tus"),
        ("state_url", "postgresql://d b/tus"),
        ("state_url", "postgresql://db:port/tus"),
        ("state_url", "postgresql://db/tus#x"),
        ("state_url", "mysql://db/tus"),
        ("state_listen_url", "sqlite:///x.db"),
        ("state_pool_size", "0"),
        ("state_connect_timeout_s", "0"),
        ("state_timeout_s", "inf"),
        ("state_retry_s", "-1"),
        ("state_prepared", "maybe"),
        ("migrate", "maybe"),
        ("node_name", "Node"),
        ("node_name", "a.b"),
        ("node_name", "a" * 17),
        ("workers", "0"),
        ("workers", "many"),
        ("workers", "2"),  # with SQLite
        ("tail_policy", "lax"),
        ("node_dead_after_s", "0"),
        ("store_url", "s3://"),
        ("store_url", "s3:bucket"),
        ("store_url", "s3://b"),
        ("store_url", "s3://bu cket"),
        ("store_url", "s3://bu..cket"),
        ("store_url", "s3:///prefix"),
        ("store_url", "s3://bucket//prefix"),
        ("store_url", "s3://bucket/a/../b"),
        ("store_url", "s3://bucket/a b"),
        ("store_url", "s3://bucket/a?x=y"),
        ("store_url", "s3://bucket/" + "a/" * 300),
        ("s3_endpoint_url", "s3.example.com"),
        ("s3_path_style", "perhaps"),
        ("s3_region", "a b"),
        ("s3_key_template", ""),
        ("s3_key_template", "{prefix}"),
        ("s3_key_template", "{prefix}{id}{id}"),
        ("s3_key_template", "{prefix}{id"),
        ("s3_key_template", "{prefix}{id}/{filename}"),
        ("s3_key_template", "{prefix}{id.x}"),
        ("s3_key_template", "{prefix}{}{id}"),
        ("s3_key_template", "{prefix}{id:>40}"),
        ("s3_key_template", "{prefix}{id!r}"),
        ("s3_key_template", "{prefix}/{id}"),
        ("s3_key_template", "{date}/{prefix}{id}"),
        ("s3_key_template", "/{id}"),
        ("s3_key_template", "{prefix}a//{id}"),
        ("s3_key_template", "{prefix}../{id}"),
        ("s3_key_template", "{prefix}{id}/"),
        ("s3_key_template", "{prefix}a b{id}"),
        ("s3_checksum", "md5"),
        ("s3_equal_parts", "perhaps"),
        ("s3_parallel_parts", "0"),
        ("s3_max_concurrency", "0"),
        ("s3_connect_timeout_s", "0"),
        ("s3_read_timeout_s", "nan"),
        ("s3_timeout_s", "-1"),
        ("s3_attempts", "0"),
        ("s3_storage_class", "a b"),
        ("s3_sse", "rot13"),
        ("s3_sse_kms_key_id", "a b"),
        ("s3_sse_kms_key_id", "key"),  # without KMS
        ("s3_acl", "everybody"),
        ("s3_tags", "a"),
        ("s3_tags", "=b"),
        ("s3_tags", "a=b,a=c"),
        ("s3_tags", "a=<b>"),
        ("s3_tags", ",".join(f"k{n}=v" for n in range(11))),
        ("s3_presign_expires_s", "604801"),
        ("direct_part_size", "1023"),
        ("direct_part_size", "6 GiB"),
        ("sign_expires_s", "0"),
        ("sign_expires_s", "604801"),
        ("sniff", "some"),
        ("store_url", "file://host/x"),
        ("store_url", "file:"),
        ("store_url", "/x"),
        ("max_size", "0"),
        ("max_size", "-1"),
        ("max_size", "ten"),
        ("max_size", str(MAX_ANNOUNCED_INTEGER + 1)),
        ("max_append_size", "0"),
        ("max_append_size", "much"),
        ("max_append_size", str(MAX_ANNOUNCED_INTEGER + 1)),
        ("behind_proxy", "proxy.example"),
        ("behind_proxy", "10.0.0.1/8"),
        ("cors_origins", "app.example.com"),
        ("cors_origins", "https://a.example/path"),
        ("cors_allow_headers", "X-Api Key"),
        ("cors_expose_headers", "X-One: y"),
        ("cors_origins", "*,https://a.example"),
        ("cors_credentials", "perhaps"),
        ("body_idle_timeout_s", "0"),
        ("body_idle_timeout_s", "nan"),
        ("lease_wait_s", "-1"),
        ("shutdown_timeout_s", "inf"),
        ("keep_alive_timeout_s", "soon"),
        ("buffer_bytes", "1 KiB"),
        ("part_size_bytes", "1"),
        ("max_header_bytes", "2 GiB"),
        ("durability", "none"),
        ("downloads", "yes"),
        ("downloads", "redirect"),  # without S3
        ("body_path", "slow"),
        ("expires_after_s", "-1"),
        ("expires_after_s", "7 days"),
        ("expires_at_most_s", "0"),
        ("expires_at_most_s", "inf"),
        ("keep_finished_s", "0"),
        ("keep_partials", "sometimes"),
        ("file_threads", "0"),
        ("log_format", "xml"),
        ("log_level", "loud"),
    ],
)
@pytest.mark.parametrize("how", ["environment", "flag"])
def test_a_wrong_value_gets_one_sentence_with_name_value_and_remedy(
    how: str, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = {}
    if how == "flag" or "\0" in value:
        flags[name] = value
    else:
        monkeypatch.setenv(f"TUS_{name.upper()}", value)

    sentence = refusal(**flags)

    shown = repr(value if len(value) <= 120 else value[:120] + "...").split("?")[0].rstrip("'\"")
    assert sentence.startswith(f"TUS_{name.upper()} is {shown}")
    assert re.search(r": .*\w.*\.$", sentence)
    assert "\n" not in sentence
    if flags:
        assert f"by --{name.replace('_', '-')}" in sentence


def test_each_wrong_setting_has_its_own_line() -> None:
    lines = refusal(port=-1, host="", durability="x").splitlines()

    assert [line.split()[0] for line in lines] == ["TUS_HOST", "TUS_PORT", "TUS_DURABILITY"]


def test_a_wrong_value_in_the_file_is_named_by_key_and_file(tmp_path: Path) -> None:
    (tmp_path / "tus-server.toml").write_text("port = 70000\n")

    assert refusal() == (
        "TUS_PORT is '70000', by the key 'port' in tus-server.toml: give a number from 0 to 65535."
    )


def test_an_unknown_key_in_the_file_is_refused_with_the_likely_one(tmp_path: Path) -> None:
    (tmp_path / "tus-server.toml").write_text("prot = 1\n")

    assert refusal() == (
        "tus-server.toml has the key 'prot', which is no setting; did you mean port?"
    )


@pytest.mark.parametrize("content", [b"port = \n", b"\xff\xfe", None])
def test_a_file_that_cannot_be_read_is_refused(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(SettingsInvalid, match=r"^TUS_CONFIG is '.*x\.toml', which .*\.$"):
        load_settings(file)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("state_url", "postgresql://me:s3cret@db/tus?password=s3cret"),
        ("state_url", "postgres://me:s3/cr3et@db/tus"),
        ("state_url", "postgres://me:s3@cr3et@db/t@s"),
        ("state_url", "postgres+asyncpg://me:s3cret@db/tus"),
        ("state_url", "postgresql:me:s3cret@db/tus"),
        ("state_listen_url", "postgres://me:s3/cr3et@db/tus"),
        ("store_url", "s3://key:s3cret@bucket"),
        ("s3_endpoint_url", "https://key:s3cret@minio"),
    ],
)
def test_secrets_in_urls_are_not_shown(name: str, url: str) -> None:
    sentence = refusal(**{name: url})

    assert sentence.startswith(f"TUS_{name.upper()} is ")
    assert not re.search("s3cret|cr3et", sentence)


def test_secrets_are_not_shown_by_the_settings_and_errors_of_the_constructor() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(state_url=POSTGRES)
    settings = Settings(state_url=POSTGRES, state_listen_url=POSTGRES, store_url=S3)

    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(settings) + str(settings)


# --- Postgres, S3, several processes


@pytest.mark.parametrize(
    "url",
    [
        POSTGRES,
        "postgres://db",
        "POSTGRESQL://me@db:5432/tus?sslmode=verify-full&application_name=a",
        "postgresql://me:p%40s%2Fs@[::1]:5433/tus",
        "postgresql:///tus?host=/run/postgresql",
        "postgresql://me@a:1,b:2/tus",
    ],
)
def test_the_state_can_be_in_postgres(url: str) -> None:
    settings = load_settings(state_url=url, store_url=S3, workers="4")

    assert settings.uses_postgres
    assert settings.state_url == url
    assert settings.workers == 4


def test_a_wrong_sslmode_is_refused_with_the_right_ones() -> None:
    sentence = refusal(state_url="postgresql://db/tus?sslmode=on", store_url=S3)

    assert "verify-full" in sentence


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/", "bucket", ""),
        ("S3://my.bucket-1/a", "my.bucket-1", "a/"),
        ("s3://Old_Bucket/a/b=c/", "Old_Bucket", "a/b=c/"),
    ],
)
def test_the_store_can_be_a_bucket(url: str, bucket: str, prefix: str) -> None:
    settings = load_settings(store_url=url)

    assert settings.uses_s3
    assert (settings.s3_bucket, settings.s3_prefix) == (bucket, prefix)


@pytest.mark.parametrize(
    ("store", "given", "size"),
    [
        ("file:x", None, 32 * MIB),
        (S3, None, 8 * MIB),
        (S3, "", 8 * MIB),
        (S3, "64 MiB", 64 * MIB),
        ("file:x", "2 MiB", 2 * MIB),
    ],
)
def test_the_part_size_suits_the_store(
    store: str, given: str | None, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if given is not None:
        monkeypatch.setenv("TUS_PART_SIZE_BYTES", given)

    assert load_settings(store_url=store).part_size == size


@pytest.mark.parametrize(
    "template",
    [
        "{prefix}{id}",
        "{id}",
        "{prefix}{owner}/{date}/{id}",
        "{prefix}{year}/{month}/{day}/{id}.bin",
        "uploads-{id}",
    ],
)
def test_keys_have_a_template(template: str) -> None:
    assert load_settings(s3_key_template=template, store_url=S3).s3_key_template == template


def test_a_field_that_keys_do_not_have_is_named() -> None:
    assert refusal(s3_key_template="{filename}/{id}", store_url=S3) == (
        "TUS_S3_KEY_TEMPLATE is '{filename}/{id}', by --s3-key-template: {filename} is no field of"
        " a key; there are {prefix}, {id}, {owner}, {date}, {year}, {month}, {day}."
    )


def test_tags_are_given_as_s3_takes_them() -> None:
    settings = load_settings(store_url=S3, s3_tags="team=a b, x = ,path=a/b:c")

    assert settings.s3_tagging == "team=a+b&x=&path=a%2Fb%3Ac"
    assert load_settings(store_url=S3).s3_tagging is None


def test_words_of_s3_are_taken_in_any_case() -> None:
    settings = load_settings(
        store_url=S3, s3_sse="AWS:KMS", s3_sse_kms_key_id="k", s3_acl="Private", s3_path_style="yes"
    )

    assert (settings.s3_sse, settings.s3_acl, settings.s3_path_style) == (
        "aws:kms",
        "private",
        True,
    )
    assert load_settings(store_url=S3, s3_sse="aes256").s3_sse == "AES256"


@pytest.mark.parametrize(
    ("flags", "start", "words"),
    [
        (
            {"state_url": POSTGRES},
            "TUS_STATE_URL is 'postgresql://***@db/tus', by --state-url: ",
            "Postgres needs an S3 store, for another node could not read this one's disk; set ",
        ),
        (
            {"workers": "2", "store_url": S3},
            "TUS_WORKERS is '2', by --workers: ",
            "with SQLite one process serves a data directory; give 1, ",
        ),
        (
            {"part_size_bytes": "4 MiB", "store_url": S3},
            "TUS_PART_SIZE_BYTES is '4194304', by --part-size-bytes: ",
            "a part in S3 has at least 5 MiB; give 5 MiB to 5 GiB.",
        ),
        (
            {"direct_part_size": "4 MiB", "store_url": S3},
            "TUS_DIRECT_PART_SIZE is '4194304', by --direct-part-size: ",
            "a part in S3 has at least 5 MiB; give 5 MiB to 5 GiB.",
        ),
        (
            {"s3_sse": "AES256", "s3_sse_kms_key_id": "key", "store_url": S3},
            "TUS_S3_SSE_KMS_KEY_ID is 'key', by --s3-sse-kms-key-id: ",
            "a key needs TUS_S3_SSE=aws:kms; set that, or leave it out.",
        ),
        (
            {"downloads": "redirect"},
            "TUS_DOWNLOADS is 'redirect', by --downloads: ",
            "there is no S3 store to redirect to; give proxy or off, ",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    flags: dict[str, str], start: str, words: str
) -> None:
    assert refusal(**flags).startswith(start + words)


def test_each_clash_has_its_own_line() -> None:
    lines = refusal(state_url=POSTGRES, downloads="redirect").splitlines()

    assert [line.split()[0] for line in lines] == ["TUS_STATE_URL", "TUS_DOWNLOADS"]


def test_settings_without_effect_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUS_S3_REGION", "eu-central-1")
    monkeypatch.setenv("TUS_S3_ENDPOINT_URL", "")
    monkeypatch.setenv("TUS_S3_CHECKSUM", "auto")
    monkeypatch.setenv("TUS_TAIL_POLICY", "shared")
    monkeypatch.setenv("TUS_STATE_POOL_SIZE", "5")

    assert idle_settings(load_settings()) == [
        "TUS_TAIL_POLICY has no effect: TUS_STORE_URL is no S3 store.",
        "TUS_STATE_POOL_SIZE has no effect: TUS_STATE_URL is not Postgres.",
        "TUS_S3_REGION has no effect: TUS_STORE_URL is no S3 store.",
    ]
    assert idle_settings(load_settings(state_url=POSTGRES, store_url=S3)) == []


def test_a_cap_of_age_without_expiry_is_listed() -> None:
    settings = load_settings(expires_after_s="0", expires_at_most_s="60")

    assert idle_settings(settings) == [
        "TUS_EXPIRES_AT_MOST_S has no effect: TUS_EXPIRES_AFTER_S is 0."
    ]


def test_credentials_need_named_origins() -> None:
    assert "TUS_CORS_ORIGINS" in refusal(cors_credentials=True)
    assert load_settings(cors_credentials=True, cors_origins="https://a.example").cors_credentials


@pytest.mark.parametrize("token", ["short", "with a blank in the middle", "ümlaut" * 5, "x" * 513])
def test_an_api_token_is_long_and_visible_and_never_shown(token: str) -> None:
    said = refusal(api_token=token)

    assert said.startswith("TUS_API_TOKEN is '***', by --api-token: give at least 16 visible")
    assert token not in said


def test_the_api_token_is_no_part_of_what_settings_show_of_themselves() -> None:
    settings = load_settings(api_token="s3cret-" * 4)

    assert settings.api_token == "s3cret-" * 4
    assert "s3cret" not in repr(settings)
    assert load_settings(api_token=" ").api_token is None


@pytest.mark.parametrize(
    "path", ["/api/", "/api/uploads/", "/api/uploads/x/", "/direct/", "/companion/"]
)
def test_uploads_are_not_where_the_server_itself_answers(path: str) -> None:
    assert "TUS_BASE_PATH" in refusal(base_path=path)


@pytest.mark.parametrize("path", ["/", "/api/files/", "/apis/", "/directory/"])
def test_uploads_may_be_beside_what_the_server_itself_answers(path: str) -> None:
    assert load_settings(base_path=path).base_path == path


def test_unknown_variables_are_listed_with_the_likely_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUS_PROT", "1")
    monkeypatch.setenv("TUS_WHATEVER", "1")
    monkeypatch.setenv("TUS_PORT", "1")
    monkeypatch.setenv("OTHER_TUS_PORT", "1")

    assert unknown_environment() == [
        "TUS_PROT is no setting; did you mean TUS_PORT?",
        "TUS_WHATEVER is no setting.",
    ]


# --- what is said about them elsewhere


def test_the_table_has_every_setting_with_default_and_meaning() -> None:
    rows = {row.name: row for row in settings_table()}

    assert rows.keys() == {f"TUS_{name.upper()}" for name in Settings.model_fields}
    assert all(row.default and row.description for row in rows.values())
    assert rows["TUS_BUFFER_BYTES"].default == "`128 MiB`"
    assert rows["TUS_DATA_DIR"].default == "`./tus-data`"
    assert rows["TUS_BODY_IDLE_TIMEOUT_S"].default == "`60`"
    assert rows["TUS_PART_SIZE_BYTES"].default == "32 MiB on disk, 8 MiB on S3"


def test_units_are_in_names_or_descriptions() -> None:
    for row in settings_table():
        if row.name.endswith("_S"):
            assert row.description.startswith("Seconds")
        if row.name.endswith("_BYTES") or row.name.startswith("TUS_MAX_"):
            assert "ytes" in row.description


def test_readme_lists_every_setting_as_it_is() -> None:
    render = runpy.run_path(str(REPOSITORY / "docs" / "settings_table.py"))
    expected = render["render_settings_table"]()
    readme = {
        cells[0].strip("`"): cells
        for line in (REPOSITORY / "README.md").read_text("utf-8").splitlines()
        if len(cells := [cell.strip() for cell in line.strip().strip("|").split("|")]) >= 2
    }

    wrong = [
        row.name
        for row in settings_table()
        if row.name not in readme or readme[row.name][1].strip("`") != row.default.strip("`")
    ]

    assert not wrong, f"README.md lacks {wrong}; it should have\n\n{expected}"
