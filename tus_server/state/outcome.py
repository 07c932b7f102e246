"""Whether a commit that nobody heard the answer to has taken effect."""

from dataclasses import replace

from tus_server.core.upload import Upload


def has_become(found: Upload, after: Upload, *, release: bool) -> bool:
    """Tell whether `found` is the row that a commit of `after` leaves.

    A commit that keeps the lease takes no part numbers back, so the row may have more set aside
    than `after` says; with fewer than that, it was not this commit.
    """
    if not release and found.next_part_number > after.next_part_number:
        after = replace(after, next_part_number=found.next_part_number)
    return found == after
