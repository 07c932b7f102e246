"""What the application wants of an upload it creates, beside what any client may say."""

from dataclasses import dataclass, replace
from datetime import timedelta

from tus_server.core.jobs import NONE, Instructions
from tus_server.core.upload import Upload
from tus_server.engine.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """See core.upload.Upload. expires_in_s: None: as any upload."""

    file_id: str | None = None
    request_key: str | None = None
    auto_complete: bool = False
    instructions: Instructions = NONE
    expires_in_s: float | None = None

    def applied(self, engine: Engine, upload: Upload) -> Upload:
        """Give the row with them. Raises: JobRefused."""
        for job in (self.instructions.success_job, self.instructions.failure_job):
            if job is not None:
                engine.check_job(job)
        expires_at = upload.expires_at
        if self.expires_in_s is not None:
            expires_at = engine.expiry.capped(
                engine.state.now() + timedelta(seconds=self.expires_in_s), upload.created_at
            )
        return replace(
            upload,
            file_id=self.file_id,
            request_key=self.request_key,
            auto_complete=self.auto_complete,
            instructions=self.instructions,
            expires_at=expires_at,
        )
