"""Which methods of `datasets` an anonymized view has, and what to take instead of the others.

Every public name of `datasets.Dataset` and `datasets.DatasetDict` is in one of three tables: one that a new release
brings is in none, and so is not there. A test compares the tables with the installed release.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anondata.errors import RefusedError

SAFE = frozenset(
    {
        # numbers, names and types
        "column_names", "features", "format", "info", "num_columns", "num_rows", "shape", "split",
        # kept columns alone
        "filter", "sort", "unique",
        # which rows, columns and formats; what they hold is made when rows are asked for
        "formatted_as", "remove_columns", "rename_column", "rename_columns", "repeat", "reset_format", "select",
        "select_columns", "set_format", "set_transform", "shard", "shuffle", "skip", "take", "train_test_split",
        "with_format", "with_transform",
    }
)  # fmt: skip
"""What looks at no content."""

WRAPPED = frozenset({"__getitem__", "__getitems__", "__iter__", "iter", "to_iterable_dataset"})
"""What hands out content, all of which goes through the engine."""

_MATERIALIZE = "view.materialize(folder), and then the method of the real dataset that it returns"
_TRANSFORM = "view.with_transform(f) for what is made on the fly, or view.materialize(folder) and then this method"
_SOURCE = "the dataset that you gave to anonymize: a view tells nothing of where it comes from"
_MAKE = "the method of datasets.Dataset, and then anonymize"

REFUSED: Mapping[str, str] = {
    # would write or copy the whole of it, unchecked
    **dict.fromkeys(
        (
            "push_to_hub", "save_to_disk", "to_csv", "to_dict", "to_json", "to_list", "to_pandas", "to_parquet",
            "to_polars", "to_sql", "to_tf_dataset", "flatten_indices",
        ),
        _MATERIALIZE,
    ),
    # would compute new columns or other types out of originals
    **dict.fromkeys(
        (
            "add_column", "add_item", "align_labels_with_mapping", "batch", "cast", "cast_column",
            "class_encode_column", "flatten", "map",
        ),
        _TRANSFORM,
    ),
    # indexes would be built from originals, and return them
    **dict.fromkeys(
        (
            "add_elasticsearch_index", "add_faiss_index", "add_faiss_index_from_external_arrays", "drop_index",
            "get_index", "get_nearest_examples", "get_nearest_examples_batch", "is_index_initialized", "list_indexes",
            "load_elasticsearch_index", "load_faiss_index", "save_faiss_index", "search", "search_batch",
        ),
        _MATERIALIZE,
    ),
    # tell of the source
    **dict.fromkeys(
        (
            "builder_name", "cache_files", "citation", "cleanup_cache_files", "config_name", "data", "dataset_size",
            "description", "download_checksums", "download_size", "homepage", "license", "size_in_bytes",
            "supervised_keys", "version",
        ),
        _SOURCE,
    ),
    # make datasets of something else
    **dict.fromkeys(
        (
            "from_buffer", "from_csv", "from_dict", "from_file", "from_generator", "from_json", "from_list",
            "from_pandas", "from_parquet", "from_polars", "from_spark", "from_sql", "from_text", "load_from_disk",
        ),
        _MAKE,
    ),
}  # fmt: skip
"""What is not there, with what to take instead."""


class Refusing:
    """Raises, for a method that `datasets` has and this does not, what to take instead."""

    def __getattr__(self, name: str) -> Any:
        if name in REFUSED:
            raise RefusedError(f"{name} is not there on an anonymized view; take {REFUSED[name]}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
