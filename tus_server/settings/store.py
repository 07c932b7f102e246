"""Settings of where the bytes of uploads are, and how they get there."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ByteSize

from tus_server.settings import s3, urls, values
from tus_server.settings.fields import MIB, OPTIONAL, WORD, CommaList, count, seconds, setting

_StoreUrl = Annotated[str, AfterValidator(urls.check_store_url)]
_WebUrl = Annotated[str, AfterValidator(values.parse_web_url)]
_Region = Annotated[str, AfterValidator(s3.check_region)]
_StorageClass = Annotated[str, AfterValidator(s3.check_storage_class)]
_KeyId = Annotated[str, AfterValidator(s3.check_kms_key_id)]
_Acl = Annotated[
    Literal[
        "private",
        "public-read",
        "public-read-write",
        "authenticated-read",
        "aws-exec-read",
        "bucket-owner-read",
        "bucket-owner-full-control",
    ],
    WORD,
]
_Sse = Annotated[Literal["AES256", "aws:kms", "aws:kms:dsse"], BeforeValidator(s3.fold_sse)]

_DISK_PART_SIZE: Final = 32 * MIB
_S3_PART_SIZE: Final = 8 * MIB


class StoreSettings(BaseModel):
    """Local disk or S3. Credentials are left to the standard AWS chain."""

    store_url: Annotated[_StoreUrl | None, OPTIONAL] = setting(
        "Where the bytes of uploads are: file:relative, file:///absolute/folder or"
        " s3://bucket/prefix",
        "give file:relative, file:///absolute/folder or s3://bucket/prefix",
        default=None,
        shown="objects in the data dir",
    )
    part_size_bytes: Annotated[ByteSize | None, OPTIONAL] = setting(
        "Bytes written between two durable commits within one request; S3: the least size of parts",
        "give a size from 1 MiB (S3: 5 MiB) to 5 GiB",
        default=None,
        shown="32 MiB on disk, 8 MiB on S3",
        ge=MIB,
        le=5 * 1024 * MIB,
    )
    s3_endpoint_url: Annotated[_WebUrl | None, OPTIONAL] = setting(
        "The S3 server, such as https://s3.example.com:9000",
        "give scheme and host such as https://s3.example.com:9000, without query and password",
        default=None,
        shown="AWS",
    )
    s3_path_style: Annotated[bool | None, OPTIONAL] = setting(
        "Whether the bucket is in the path of S3's URLs, not in the host name",
        "give true or false",
        default=None,
        shown="true with TUS_S3_ENDPOINT_URL",
    )
    s3_region: Annotated[_Region | None, OPTIONAL] = setting(
        "Region of the bucket",
        "give a name such as eu-central-1",
        default=None,
        shown="that of the AWS profile or environment",
    )
    s3_key_template: Annotated[str, AfterValidator(s3.check_key_template)] = setting(
        "Key of an upload's object; also `{owner}`, `{date}`, `{year}`, `{month}`, `{day}`",
        "give a key such as {prefix}{date}/{id}",
        default="{prefix}{id}",
    )
    s3_checksum: Annotated[Literal["auto", "full-object", "part", "none"], WORD] = setting(
        "What S3 checks: CRC-64 of the whole object and its parts, parts, nothing; auto: tried out",
        "give auto, full-object, part or none",
        default="auto",
    )
    s3_equal_parts: bool = setting(
        "Whether all parts but the last have one size, as Cloudflare R2 wants it",
        "give true or false",
        default=False,
    )
    s3_parallel_parts: int = count(
        "Parts of one upload on their way to S3 at once", default=4, most=64
    )
    s3_max_concurrency: int = count(
        "Requests with bodies to S3 at once, for a process", default=32, most=1000
    )
    s3_connect_timeout_s: float = seconds("Seconds to make a connection to S3", default=5.0)
    s3_read_timeout_s: float = seconds("Seconds to wait for bytes of an answer", default=30.0)
    s3_timeout_s: float = seconds("Seconds for one attempt at one request to S3", default=120.0)
    s3_attempts: int = count(
        "How often a request to S3 is tried before the client is told to wait", default=4, most=20
    )
    s3_storage_class: Annotated[_StorageClass | None, OPTIONAL] = setting(
        "Storage class of objects, such as STANDARD_IA",
        "give a name such as STANDARD_IA",
        default=None,
        shown="the bucket's",
    )
    s3_sse: Annotated[_Sse | None, OPTIONAL] = setting(
        "Encryption of objects by S3: AES256, aws:kms or aws:kms:dsse",
        "give AES256, aws:kms or aws:kms:dsse",
        default=None,
        shown="the bucket's",
    )
    s3_sse_kms_key_id: Annotated[_KeyId | None, OPTIONAL] = setting(
        "KMS key for TUS_S3_SSE=aws:kms",
        "give the id or ARN of a key",
        default=None,
        shown="the account's",
    )
    s3_acl: Annotated[_Acl | None, OPTIONAL] = setting(
        "Canned ACL of objects, such as bucket-owner-full-control",
        "give the name of a canned ACL, such as private or bucket-owner-full-control",
        default=None,
        shown="none",
    )
    s3_tags: Annotated[CommaList, AfterValidator(s3.check_tags)] = setting(
        "Tags of objects: `key=value`, with commas between",
        "give up to 10 of key=value with commas between",
        default=(),
        shown="none",
    )
    s3_presign_expires_s: int = setting(
        "Seconds that a URL for TUS_DOWNLOADS=redirect can be used",
        "give a number of seconds from 1 to 604800",
        default=3600,
        ge=1,
        le=7 * 24 * 3600,
    )

    @property
    def uses_s3(self) -> bool:
        """Whether the objects are in S3; else on disk, in store_path."""
        return self.store_url is not None and urls.is_s3_url(self.store_url)

    @property
    def part_size(self) -> int:
        """Bytes of a part: as given, else what suits the store."""
        return self.part_size_bytes or (_S3_PART_SIZE if self.uses_s3 else _DISK_PART_SIZE)

    @property
    def s3_bucket(self) -> str:
        """The bucket of an S3 store."""
        return self._s3_place[0]

    @property
    def s3_prefix(self) -> str:
        """What all keys in it begin with: empty, or with a slash at its end."""
        return self._s3_place[1]

    @property
    def s3_tagging(self) -> str | None:
        """The tags of objects, as S3 takes them in a header."""
        return s3.render_tagging(self.s3_tags)

    @property
    def _s3_place(self) -> tuple[str, str]:
        assert self.store_url is not None
        return urls.parse_s3_url(self.store_url)
