"""What both interfaces of a conditions server have in common: JSON answers, and lists of payloads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar
from urllib.parse import quote

import httpx

from export.conditions.transport import receive, retry
from export.errors import ServerError
from pxdbg_runtime.errors import JsonFieldError
from pxdbg_runtime.json_records import convert_record, decode_record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from export.conditions.limits import Limits

__all__ = ["Server", "convert_fields"]

T = TypeVar("T")


class _NamedRecord(Protocol):
    @property
    def payload_name(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server of the conditions database; its interface adds what `export.conditions.sources.Source` asks for.

    Attributes
    ----------
    client : httpx.Client
    address : str
        Base URL, without a slash at the end.
    limits : Limits
    """

    client: httpx.Client
    address: str
    limits: Limits
    payload_folder: ClassVar[Path | None] = None
    """A server has no folder of files on this machine."""

    def fetch_json(self, path: str, kind: type[T], params: Mapping[str, str | int] | None = None) -> T:
        """Fetch a JSON answer as a type that msgspec knows; raises `ServerError`."""
        url = f"{self.address}{path}"
        limits = self.limits

        def request() -> bytes:
            answer = bytearray()
            headers = {"Accept": "application/json"}
            max_bytes = limits.max_answer_bytes
            receive(self.client, url, answer.extend, limits, max_bytes=max_bytes, params=params, headers=headers)
            return bytes(answer)

        try:
            return decode_record(retry(request, limits).decode("utf-8"), kind)
        except UnicodeDecodeError:
            message = f"{url} must answer with JSON in UTF-8, but its answer is not UTF-8."
            raise ServerError(message) from None
        except JsonFieldError as error:
            message = f"{url} gave an answer that is not understood: {error}"
            raise ServerError(message) from None

    def fetch_tag(self, path: str, global_tag: str, kind: type[T], *, otherwise: str = "") -> T:
        """Fetch the record of a global tag, whose name is appended to the path; raises `ServerError`.

        `otherwise` ends the sentence if the answer is 404 Not Found: what else may be the reason.
        """
        try:
            return self.fetch_json(f"{path}{quote(global_tag, safe='')}", kind)
        except ServerError as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise
            message = f"{self.address} does not know the global tag {global_tag} (404 Not Found){otherwise}."
            raise ServerError(message, status=error.status) from None

    def fetch_records(
        self, path: str, params: Mapping[str, str | int], name: str, named_kind: type[_NamedRecord], kind: type[T]
    ) -> list[T]:
        """Fetch a list, and convert the entries whose `named_kind` has the name; raises `ServerError`."""
        source = f"{self.address}{path} gave an answer that is not understood"
        records = []
        for index, value in enumerate(self.fetch_json(path, list[dict[str, Any]], params)):
            where = f"{source}: entry {index}"
            if convert_fields(where, value, named_kind).payload_name == name:
                records.append(convert_fields(where, value, kind))
        return records


def convert_fields(where: str, value: object, kind: type[T]) -> T:
    """Check an object against a type; raises `ServerError` with the place and the field."""
    try:
        return convert_record(value, kind)
    except JsonFieldError as error:
        message = f"{where}: {error}"
        raise ServerError(message) from None
