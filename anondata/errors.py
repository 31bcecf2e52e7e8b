"""Every error that anondata raises on purpose.

::

    AnondataError
    ├── PolicyError            (ValueError)    a policy that does not validate, or an unknown name in one
    ├── UndeclaredFieldError   (KeyError)      a sample has a field that the schema does not name
    ├── FieldTypeError         (TypeError)     a field does not hold what it was declared to hold
    ├── UndecodableError       (ValueError)    bytes that are no sample of the declared content type
    ├── UnreadableSourceError  (OSError)       a source that is not there or may not be read
    ├── OutputError            (OSError)       a result that cannot be written where it belongs
    ├── ShapeError             (ValueError)    a tensor of the wrong shape or dtype
    ├── WeightsError           (RuntimeError)  weights that are missing, unknown or not the published file
    ├── MissingExtraError      (ImportError)   an optional package is not installed
    ├── DeviceError            (RuntimeError)  a device that cannot be used in this process
    ├── WithheldError          (RuntimeError)  a sample was withheld and nobody said what to give instead
    ├── RefusedError           (AttributeError) an operation that would reach originals, or could not be checked
    ├── LeakError              (RuntimeError)  something of an original was found in what was written
    ├── GalleryError           (ValueError)    a gallery that cannot be read, changed or used as asked
    ├── CalibrationError       (ValueError)    labelled faces that cannot support a threshold
    ├── ShardsError            (ValueError)    shards that cannot be anonymized as asked: none there, or damaged
    ├── AuditError             (ValueError)    photos that cannot be audited: nothing to pair or to compare
    └── ReportError            (ValueError)    reports that cannot be merged or read

Messages say what was found, what was expected and the next step. They never carry pixels, embeddings, file
names, labels or captions: a sample is named by its index or by a keyed hash of its key.
"""

from __future__ import annotations


class AnondataError(Exception):
    """Base of every error in this module."""


class PolicyError(AnondataError, ValueError):
    """A policy that does not validate, or an unknown name in one."""


class UndeclaredFieldError(AnondataError, KeyError):
    """A sample has a field that the schema does not name: nothing passes because nobody mentioned it."""

    __str__ = Exception.__str__  # KeyError would print the repr of the message


class FieldTypeError(AnondataError, TypeError):
    """A field does not hold what it was declared to hold."""


class UndecodableError(AnondataError, ValueError):
    """Bytes that are no sample of the declared content type.

    Args:
        message: what was found and what to do, without names or bytes of the input.
        reason: one snake_case word for reports (``"truncated"``, ``"too_large"``, …).
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class UnreadableSourceError(AnondataError, OSError):
    """A source that is not there or may not be read."""


class OutputError(AnondataError, OSError):
    """A result that cannot be written where it belongs: the disk is full, or the folder may not be written."""


class ShapeError(AnondataError, ValueError):
    """A tensor of the wrong shape or dtype."""


class WeightsError(AnondataError, RuntimeError):
    """Weights that are missing, unknown or not the published file."""


class MissingExtraError(AnondataError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class DeviceError(AnondataError, RuntimeError):
    """A device that cannot be used in this process, as CUDA in one that was forked."""


class WithheldError(AnondataError, RuntimeError):
    """A sample was withheld, and policy or loader say ``raise``, or there is nothing to give instead of it."""


class RefusedError(AnondataError, AttributeError):
    """An operation that would reach originals, or whose result could not be checked; the message names another."""


class LeakError(AnondataError, RuntimeError):
    """Something of an original was found in what was written; what was written must not be given away."""


class GalleryError(AnondataError, ValueError):
    """A gallery that cannot be read, changed or used as asked: damaged, of another embedder, locked, empty …"""


class CalibrationError(AnondataError, ValueError):
    """Labelled faces that cannot support a threshold at the false-accept rate that was asked for."""


class ShardsError(AnondataError, ValueError):
    """Shards that cannot be anonymized as asked: none there, two of one name, damaged, or no worker finishes one."""


class AuditError(AnondataError, ValueError):
    """Photos that cannot be audited: nothing to pair, or nobody to compare with."""


class ReportError(AnondataError, ValueError):
    """Reports that cannot be merged or read."""
