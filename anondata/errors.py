"""Every error that anondata raises on purpose.

::

    AnondataError
    ├── ArgumentError          (ValueError)    arguments that cannot be used: a source that is not there …
    ├── PolicyError            (ValueError)    a policy that does not validate, or an unknown name in one
    ├── UndeclaredFieldError   (KeyError)      a sample has a field that the schema does not name
    ├── FieldTypeError         (TypeError)     a field does not hold what it was declared to hold
    ├── UndecodableError       (ValueError)    bytes that cannot be decoded as the declared content type
    ├── UnreadableSourceError  (OSError)       a source that does not exist or may not be read
    ├── OutputError            (OSError)       a result that cannot be written where it belongs
    ├── ShapeError             (ValueError)    a tensor of the wrong shape or dtype
    ├── WeightsError           (RuntimeError)  weights that are missing, unknown or not the published file
    ├── MissingExtraError      (ImportError)   an optional package is not installed
    ├── DeviceError            (RuntimeError)  a device that cannot be used in this process
    ├── WithheldError          (RuntimeError)  a sample was withheld, and nothing can be given instead
    ├── RefusedError           (AttributeError) an operation that would reach originals, or could not be checked
    ├── LeakError              (RuntimeError)  something of an original was found in what was written
    ├── GalleryError           (ValueError)    a gallery that cannot be read, changed or used as asked
    ├── CalibrationError       (ValueError)    labelled faces that cannot support a threshold
    ├── ShardsError            (ValueError)    shards that cannot be anonymized as asked: none found, or damaged
    ├── AuditError             (ValueError)    photos that cannot be audited: nothing to pair or to compare
    ├── LimitError             (ValueError)    a limit, an amount or a name that a ledger cannot hold
    ├── QuotaExceeded          (RuntimeError)  a client has received what was agreed
    ├── LedgerError            (OSError)       a ledger that cannot be reached, read or written
    │   ├── UnknownClientError                 no limit covers this client: it gets nothing
    │   └── ClockError                         the clock is behind what the ledger has seen, or leapt ahead
    ├── CardError              (ValueError)    a card that cannot be made or read
    ├── ManifestError          (ValueError)    an output without a manifest, or with one that contradicts itself
    ├── PublishError           (RuntimeError)  an output that may not or cannot be published
    ├── CatalogError           (ValueError)    a catalog of datasets that cannot be read or does not validate
    ├── RequestError           (ValueError)    a request that cannot be met as it was asked
    └── ReportError            (ValueError)    reports that cannot be merged or read

Messages say what was found, what was expected and the next step. They never carry pixels, embeddings, file
names, labels or captions: a sample is named by its index or by a keyed hash of its key.
"""

from __future__ import annotations

from datetime import datetime


class AnondataError(Exception):
    """Base of every error in this module."""


class ArgumentError(AnondataError, ValueError):
    """Arguments that cannot be used as they are: the caller must change them, and nothing was done."""


class PolicyError(AnondataError, ValueError):
    """A policy that does not validate, or an unknown name in one."""


class UndeclaredFieldError(AnondataError, KeyError):
    """A sample has a field that the schema does not name. Such fields never pass."""

    __str__ = Exception.__str__  # KeyError would print the repr of the message


class FieldTypeError(AnondataError, TypeError):
    """A field does not hold what it was declared to hold."""


class UndecodableError(AnondataError, ValueError):
    """Bytes that cannot be decoded as the declared content type.

    Args:
        message: what was found and what to do, without names or bytes of the input.
        reason: one snake_case word for reports (``"truncated"``, ``"too_large"``, …).
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class UnreadableSourceError(AnondataError, OSError):
    """A source that does not exist or may not be read."""


class OutputError(AnondataError, OSError):
    """A result that cannot be written where it belongs: the disk is full, or the folder may not be written."""


class ShapeError(AnondataError, ValueError):
    """A tensor of the wrong shape or dtype."""


class WeightsError(AnondataError, RuntimeError):
    """Weights that are missing, unknown or not the published file."""


class MissingExtraError(AnondataError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class DeviceError(AnondataError, RuntimeError):
    """A device that cannot be used in this process, such as CUDA after a fork."""


class WithheldError(AnondataError, RuntimeError):
    """A sample was withheld, and the policy or the loader says ``raise``, or there is no other sample to give."""


class RefusedError(AnondataError, AttributeError):
    """An operation that would reach originals, or whose result could not be checked; the message names another."""


class LeakError(AnondataError, RuntimeError):
    """Something of an original was found in what was written. Do not give that away."""


class GalleryError(AnondataError, ValueError):
    """A gallery that cannot be read, changed or used as asked: damaged, of another embedder, locked, empty …"""


class CalibrationError(AnondataError, ValueError):
    """Labelled faces that cannot support a threshold at the false-accept rate that was asked for."""


class ShardsError(AnondataError, ValueError):
    """Shards that cannot be anonymized as asked: none found, two of one name, a damaged one, or workers that fail."""


class AuditError(AnondataError, ValueError):
    """Photos that cannot be audited: nothing to pair, or nobody to compare with."""


class CardError(AnondataError, ValueError):
    """A card that cannot be made or read: a measured value is missing, or anondata did not write the text."""


class LimitError(AnondataError, ValueError):
    """A limit, an amount, a unit or a name that a ledger cannot hold."""


class QuotaExceeded(AnondataError, RuntimeError):
    """A client has received what was agreed, or the rest is reserved by other processes.

    Args:
        message: names the client, the dataset, the content type and the limit, in the operator's own words.
        client, dataset, content_type: whose delivery was refused.
        unit, window, limit, used, reserved: the limit that refused it, and how much of it is used.
        renews_at: when the window ends (UTC); None for ``total``.
    """

    def __init__(
        self,
        message: str,
        *,
        client: str = "",
        dataset: str = "",
        content_type: str = "",
        unit: str = "",
        window: str = "",
        limit: int = 0,
        used: int = 0,
        reserved: int = 0,
        renews_at: datetime | None = None,
    ) -> None:
        super().__init__(message)
        self.client, self.dataset, self.content_type = client, dataset, content_type
        self.unit, self.window, self.limit = unit, window, limit
        self.used, self.reserved, self.renews_at = used, reserved, renews_at


class LedgerError(AnondataError, OSError):
    """A ledger that cannot be reached, read or written. Nothing was delivered that was not reserved before."""


class UnknownClientError(LedgerError):
    """No limit covers this client, dataset and content type, so nothing is delivered."""


class ClockError(LedgerError):
    """The clock is behind the ledger's latest entry, or far ahead of it. A window could open too early."""


class ManifestError(AnondataError, ValueError):
    """An output has no manifest, or one that is damaged or contradicts itself."""


class PublishError(AnondataError, RuntimeError):
    """An output that may not or cannot be published; nothing was published."""


class CatalogError(AnondataError, ValueError):
    """A catalog of datasets that cannot be read, or does not validate."""


class RequestError(AnondataError, ValueError):
    """A request that cannot be met as it was asked. Nothing was delivered, and nothing was charged."""


class ReportError(AnondataError, ValueError):
    """Reports that cannot be merged or read."""


def __dir__() -> list[str]:
    return sorted(
        name for name, value in globals().items() if isinstance(value, type) and value.__module__ == __name__
    )
