"""Where an upload's files are on local disk: made from the id alone, never from a user's name."""

from pathlib import Path

from tus_server.core.ids import UploadId, random_part

PARTIAL = ".partial"


class Paths:
    """`<root>/objects/a/b/ab...` and, until it is complete, `ab....partial` beside it.

    Both are in one folder, so a rename finishes an upload and one fsync of that folder makes it
    last. 16 x 16 folders: soon all there, and enough for many millions of files with the hashed
    folders of today's file systems.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.objects = f"{root}/objects"
        self.probe = f"{self.objects}/.probe"

    def folder(self, upload_id: UploadId) -> str:
        return f"{self.objects}/{upload_id[0]}/{upload_id[1]}"

    def final(self, upload_id: UploadId) -> str:
        return f"{self.folder(upload_id)}/{random_part(upload_id)}"

    def partial(self, upload_id: UploadId) -> str:
        return self.final(upload_id) + PARTIAL
