"""Data sets: data that many submissions share, in Redis once, under the hash of their text.

What is there already is not sent again. A submission holds what it refers to until it has ended (datasets.lua).
"""

from __future__ import annotations

import asyncio
import bz2
import hashlib
from typing import TYPE_CHECKING, Any

from redis.exceptions import OutOfMemoryError

from tasks.connection import redis_errors
from tasks.document import DatasetRef
from tasks.errors import DatasetsFull, InvalidRequest, UnknownDataset
from tasks.models import MAX_DATA_BYTES, ExecutionRequest
from tasks.script import Script

if TYPE_CHECKING:
    import redis
    from pydantic import JsonValue

    from tasks.settings import Settings

__all__ = ["Datasets", "unknown_dataset"]

#: Room comes when one expires: nobody can say when.
DATASETS_PAUSE_SECONDS = 30.0
#: What bzip2 makes of a text that it cannot shrink is a hundredth longer at most, and 600 bytes.
MAX_COMPRESSED_BYTES = MAX_DATA_BYTES + MAX_DATA_BYTES // 100 + 600


class Datasets:
    """The data sets of a queue. Safe to share between threads.

    Args:
        settings: the queue, how long they are kept, and how large they may be together.
        client: of Redis; it returns bytes.
    """

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self._settings = settings
        self._client: Any = client  # redis-py's annotations cover its asyncio form, too
        self._script = Script(settings, client)

    def put(self, data: JsonValue) -> DatasetRef:
        """Store data for submissions to refer to; what is there already is only kept for longer.

        Args:
            data: any JSON value, at most 16 MiB as text.

        Raises:
            InvalidRequest: JSON cannot hold it, or it is too large.
            DatasetsFull: no room for it now.
            BrokerUnavailable: Redis does not answer.
        """
        # Looked at as the data of a submission are.
        text = ExecutionRequest.parse({"code": "#", "data": data}).data_json
        if not text:
            msg = "data: a reference was put before, submit with it as it is"
            raise InvalidRequest(msg)
        ref = DatasetRef(hashlib.sha256(text).hexdigest(), len(text))
        with redis_errors():
            if not self._keep(ref.digest):
                self._store(ref.digest, bz2.compress(text))
        return ref

    async def put_async(self, data: JsonValue) -> DatasetRef:
        """Do what `put` does without blocking the event loop."""
        return await asyncio.to_thread(self.put, data)

    def read(self, digest: str) -> bytes:
        """Return the text of a data set; for workers. Lets Redis' own exceptions through.

        Whoever wrote it is not trusted: what comes is bounded, packed and unpacked, and compared with its hash.

        Raises:
            UnknownDataset: it is not there.
            InvalidRequest: it is not what was put there.
        """
        # One byte more than there may be.
        compressed: bytes = self._client.getrange(f"{self._script.prefix}dataset:{digest}", 0, MAX_COMPRESSED_BYTES)
        if not compressed:
            raise unknown_dataset(digest)
        text = _decompress(compressed)
        if text is None or hashlib.sha256(text).hexdigest() != digest:
            msg = f"dataset: what Redis has as {digest[:12]}… is not what was put: have it removed, then put it again"
            raise InvalidRequest(msg)
        return text

    def _keep(self, digest: str) -> bool:
        arguments = ("keep_dataset", digest, self._settings.dataset_expires_seconds)
        try:
            # As `_store` calls it: a Redis that does not know the script yet is told before megabytes are sent.
            return bool(self._script.accept(*arguments))
        except OutOfMemoryError:
            return bool(self._script.change(*arguments))

    def _store(self, digest: str, compressed: bytes) -> None:
        limits = self._settings
        try:
            word = self._script.accept(
                "put_dataset", digest, compressed, limits.dataset_expires_seconds, limits.max_dataset_bytes
            )
        except OutOfMemoryError:
            word = b"memory"
        bound = f"{limits.max_dataset_bytes:,} bytes (STRATBOX_MAX_DATASET_BYTES)"
        match word:
            case b"never":
                msg = f"data: {len(compressed):,} bytes compressed, all data sets together may have {bound}"
                raise InvalidRequest(msg)
            case b"full":
                msg = (
                    f"the data sets fill {bound}: put it again in {DATASETS_PAUSE_SECONDS:g} s, when some have expired"
                )
                raise DatasetsFull(msg, DATASETS_PAUSE_SECONDS)
            case b"memory":
                msg = (
                    "Redis has no memory left for more data sets: "
                    f"put it again in {DATASETS_PAUSE_SECONDS:g} s, when some have expired"
                )
                raise DatasetsFull(msg, DATASETS_PAUSE_SECONDS)


def _decompress(compressed: bytes) -> bytes | None:
    """Return the text, or None where it is longer than it may be, or no text of ours."""
    decompressor = bz2.BZ2Decompressor()
    try:
        text = decompressor.decompress(compressed, MAX_DATA_BYTES + 1)
    except OSError:
        return None
    return text if decompressor.eof and not decompressor.unused_data and len(text) <= MAX_DATA_BYTES else None


def unknown_dataset(digest: str) -> UnknownDataset:
    """Return the error for a data set that is not there."""
    msg = f"dataset: {digest[:12]}… is not in Redis, or not any more: put it again, then try again"
    return UnknownDataset(msg)
