"""The gallery as a value: adding, removing, merging, searching; and that it tells nobody who is in it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from anondata.errors import GalleryError
from anondata.regions import Regions
from anondata.verifiers.gallery import Floats, Gallery, Portrait, empty_gallery

DIMENSIONS = 4


@dataclass
class Named:
    name: str = "an-embedder"
    fingerprint: str = "0123456789abcdef"

    def embed(self, views: Sequence[Tensor], regions: Regions) -> Tensor:
        raise NotImplementedError


def rows(count: int, *, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((count, DIMENSIONS), np.float32)


def portrait(image: bytes = b"jpeg") -> Portrait:
    return Portrait(image, np.zeros(4, np.float32), np.full((5, 2), np.nan, np.float32))


def three_people() -> Gallery:
    """Ann with two templates, and Bob and Cy with one each, in turns."""
    names = ["ann", "bob", "ann", "cy"]
    return empty_gallery(Named()).add(names, rows(4), labels={"ann": "Ann A.", "cy": "Cy C."})


def content(gallery: Gallery) -> dict[str, Any]:
    """Templates by person, whatever their order; and labels."""
    held = {
        name: sorted(map(tuple, gallery.templates[gallery.owners == i])) for i, name in enumerate(gallery.identities)
    }
    return {"templates": held, "labels": dict(zip(gallery.identities, gallery.labels, strict=True))}


# Adding


def test_templates_belong_to_who_they_were_added_for() -> None:
    gallery = three_people()
    assert gallery.identities == ("ann", "bob", "cy")
    assert gallery.labels == ("Ann A.", "", "Cy C.")
    assert gallery.owners.tolist() == [0, 1, 0, 2]
    np.testing.assert_array_equal(gallery.templates, rows(4))


def test_adding_leaves_the_gallery_that_it_was_added_to() -> None:
    before = three_people()
    told = content(before)
    before.add(["dee"], rows(1, seed=1))
    before.remove(["ann"])
    assert content(before) == told


def test_a_gallery_does_not_change_with_the_array_that_it_was_made_from() -> None:
    given_rows = rows(2)
    gallery = empty_gallery(Named()).add(["ann", "bob"], given_rows)
    given_rows[:] = 0
    np.testing.assert_array_equal(gallery.templates, rows(2))


def test_known_people_are_added_to_only_when_asked() -> None:
    with pytest.raises(
        GalleryError, match="1 of the identities are in the gallery already; remove them first, or ext"
    ):
        three_people().add(["bob", "bob", "dee"], rows(3, seed=1))
    extended = three_people().add(["bob", "dee"], rows(2, seed=1), extend=True)
    assert extended.owners.tolist() == [0, 1, 0, 2, 1, 3]
    assert extended.labels == ("Ann A.", "", "Cy C.", "")


@pytest.mark.parametrize(
    ("names", "templates", "message"),
    [
        (["a"], rows(2), "1 identities for 2 templates"),
        (["a"], np.zeros((1, 5)), "have 5 dimensions, the gallery has 4"),
        (["a"], np.zeros(4), "must be a matrix"),
        (["a"], np.zeros((1, 0)), "must be a matrix"),
        (
            ["a", "b"],
            [[0, 0, 0, np.nan], [np.inf, 0, 0, 0]],
            "2 of 2 templates are not finite; leave those faces out",
        ),
        ([" "], rows(1), "must be a text that is not empty"),
        ([7], rows(1), "must be a text that is not empty"),
    ],
)
def test_what_is_no_template_of_somebody_is_refused(names: Any, templates: Any, message: str) -> None:
    with pytest.raises(GalleryError, match=message):
        three_people().add(names, templates)


def test_portraits_are_kept_beside_their_templates() -> None:
    gallery = three_people().add(["dee", "eve"], rows(2, seed=1), portraits=[None, portrait(b"eve")])
    assert [p and p.image for p in gallery.portraits] == [None, None, None, None, None, b"eve"]
    assert [p and p.image for p in gallery.remove(["dee"]).portraits] == [None, None, None, None, b"eve"]
    more = gallery.add(["flo"], rows(1, seed=2))
    assert len(more.portraits) == 7
    with pytest.raises(GalleryError, match="1 portraits for 2 templates"):
        gallery.add(["x", "y"], rows(2), portraits=[None])


def test_what_was_made_of_the_templates_goes_with_every_change() -> None:
    gallery = replace(three_people(), parrots={"fill": rows(4, seed=3)})
    assert gallery.add(["dee"], rows(1, seed=1)).parrots == {}
    kept = gallery.remove(["ann"]).parrots["fill"]
    np.testing.assert_array_equal(kept, rows(4, seed=3)[[1, 3]])


# Removing


def test_who_is_removed_is_gone_and_the_others_stay() -> None:
    before, after = content(three_people()), content(three_people().remove(["ann"]))
    assert set(after["templates"]) == {"bob", "cy"}
    assert all(after["templates"][name] == before["templates"][name] for name in ("bob", "cy"))
    assert after["labels"] == {"bob": "", "cy": "Cy C."}


def test_a_gallery_of_which_all_were_removed_takes_new_people() -> None:
    gallery = three_people().remove(["cy", "ann", "bob"])
    assert len(gallery) == 0
    assert gallery.info()["templates_per_identity"] == [0, 0]
    assert gallery.add(["dee"], rows(1)).identities == ("dee",)


def test_strangers_are_told_by_number_not_by_name() -> None:
    with pytest.raises(GalleryError, match=r"not in the gallery: number 2, 4 of the identities given$") as caught:
        three_people().remove(["ann", "jane", "bob", "max"])
    assert "jane" not in str(caught.value)


def test_removing_nobody_and_removing_twice_are_fine() -> None:
    assert content(three_people().remove([])) == content(three_people())
    assert content(three_people().remove(["ann", "ann"])) == content(three_people().remove(["ann"]))


@given(names=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=9), data=st.data())
def test_removing_is_as_never_having_added(names: list[str], data: st.DataObject) -> None:
    gone = data.draw(st.lists(st.sampled_from(sorted(set(names))), unique=True))
    templates, kept = rows(len(names)), [i for i, name in enumerate(names) if name not in gone]
    removed = empty_gallery(Named()).add(names, templates).remove(gone)
    never = empty_gallery(Named())
    if kept:
        never = never.add([names[i] for i in kept], templates[kept])
    assert content(removed) == content(never)


# Merging


def test_merged_galleries_hold_the_people_of_both() -> None:
    other = empty_gallery(Named()).add(
        ["dee", "dee"], rows(2, seed=1), labels={"dee": "Dee"}, portraits=[None, portrait()]
    )
    both = three_people().merge(other)
    assert content(both)["templates"] == content(three_people())["templates"] | content(other)["templates"]
    assert both.labels == ("Ann A.", "", "Cy C.", "Dee")
    assert [p is not None for p in both.portraits] == [False, False, False, False, False, True]


def test_merging_with_nobody_changes_nothing() -> None:
    nobody = empty_gallery(Named())
    assert content(three_people().merge(nobody)) == content(three_people())
    assert content(nobody.merge(three_people())) == content(three_people())
    assert content(three_people().merge(three_people().remove(["ann", "bob", "cy"]))) == content(three_people())


def test_people_of_both_are_merged_only_when_asked() -> None:
    other = empty_gallery(Named()).add(["bob"], rows(1, seed=1))
    with pytest.raises(GalleryError, match="in the gallery already"):
        three_people().merge(other)
    assert len(content(three_people().merge(other, extend=True))["templates"]["bob"]) == 2


def test_galleries_of_other_roles_or_embedders_do_not_merge() -> None:
    consented = empty_gallery(Named(), role="consented").add(["dee"], rows(1))
    with pytest.raises(GalleryError, match="a consented gallery cannot be merged into a protected one"):
        three_people().merge(consented)
    other = empty_gallery(Named(name="another")).add(["dee"], rows(1))
    with pytest.raises(GalleryError, match="made with embedder 'an-embedder', not 'another'; build it again"):
        three_people().merge(other)
    weights = empty_gallery(Named(fingerprint="ffffffffffff")).add(["dee"], rows(1))
    with pytest.raises(GalleryError, match=r"other weights of 'an-embedder' \(01234567, here ffffffff\)"):
        three_people().merge(weights)


# Searching


def test_a_search_finds_what_a_loop_finds() -> None:
    gallery = empty_gallery(Named()).add([f"p{i}" for i in range(30)], rows(30))
    probes = rows(7, seed=1)
    found = gallery.search(torch.from_numpy(probes), k=3)
    for i, probe in enumerate(probes):
        distances = np.linalg.norm(gallery.templates - probe, axis=1)
        assert found.row[i].tolist() == np.argsort(distances)[:3].tolist()
        np.testing.assert_allclose(found.distance[i].numpy(), np.sort(distances)[:3], rtol=1e-3)


def test_nobody_cannot_be_searched_nor_by_probes_of_other_dimensions() -> None:
    with pytest.raises(GalleryError, match="the gallery is empty: nobody to search for"):
        empty_gallery(Named()).search(torch.zeros(1, DIMENSIONS))
    for shape in ((1, 5), (4,), (1, 1, 4)):
        with pytest.raises(GalleryError, match="for a gallery of 4 dimensions"):
            three_people().search(torch.zeros(shape))


def test_threads_may_search_one_gallery() -> None:
    gallery = empty_gallery(Named()).add([f"p{i}" for i in range(50)], rows(50))
    probes = torch.from_numpy(gallery.templates)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: gallery.search(probes).row[:, 0].tolist(), range(32)))
    assert found == [list(range(50))] * 32


# What it tells


def test_no_repr_and_no_info_tells_a_name_a_label_or_a_template() -> None:
    gallery = replace(three_people(), portraits=(portrait(b"secret"),) * 4)
    told = f"{gallery!r} {gallery.info()} {gallery.portraits[0]!r}"
    assert not [word for word in ("ann", "bob", "Ann", "Cy", "secret", "array", gallery.salt.hex()) if word in told]


def test_info_counts() -> None:
    info = three_people().info()
    assert (info["identities"], info["templates"], info["templates_per_identity"]) == (3, 4, [1, 2])
    assert (info["role"], info["portraits"], info["parrot_techniques"], info["index"]) == ("protected", 0, 0, None)
    assert empty_gallery(Named()).info()["templates"] == 0


def test_the_fingerprint_follows_people_templates_and_role_and_tells_nothing_without_the_salt() -> None:
    gallery = three_people()
    moved = gallery.templates.copy()
    moved[0, 0] += 1e-3
    others = [
        three_people(),  # another salt
        replace(gallery, role="consented"),
        replace(gallery, templates=moved),
        replace(gallery, owners=np.array([0, 1, 1, 2])),
        replace(gallery, identities=("ann", "bob", "di")),
        replace(gallery, embedder_fingerprint="f"),
        gallery.remove(["ann"]),
        gallery.remove(["ann", "bob", "cy"]),
    ]
    prints = {gallery.fingerprint, *(other.fingerprint for other in others)}
    assert len(prints) == 9
    assert all(len(fingerprint) == 32 for fingerprint in prints)
    assert replace(gallery, labels=("", "", "")).fingerprint == gallery.fingerprint


def test_names_that_are_no_unicode_are_people_too() -> None:
    """Folders are named by bytes; Python shows those that are no UTF-8 as lone surrogates."""
    gallery = empty_gallery(Named()).add([b"jos\xe9".decode(errors="surrogateescape")], rows(1))
    assert len(gallery.fingerprint) == 32


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g))])
def test_a_gallery_can_be_copied_and_sent_to_workers(copied: Callable[[Gallery], Gallery]) -> None:
    gallery = replace(three_people(), portraits=(portrait(), None, None, None), parrots={"fill": rows(4)})
    gallery.search(torch.zeros(1, DIMENSIONS))
    again = copied(gallery)
    assert again.fingerprint == gallery.fingerprint
    assert again.labels == gallery.labels
    assert again.portraits[0] is not None
    assert again.search(torch.from_numpy(gallery.templates)).row[:, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"role": "enemy"}, "role is 'protected' or 'consented'"),
        ({"templates": np.zeros((4, 4))}, "float32 matrix"),
        ({"templates": np.zeros(4, np.float32)}, "float32 matrix"),
        ({"templates": np.full((4, 4), np.inf, np.float32)}, "must be finite"),
        ({"identities": ("a", "a", "b")}, "must be unique"),
        ({"identities": ("a", "b", "")}, "not empty"),
        ({"labels": ("", "")}, "a label for each"),
        ({"labels": ("", "", 3)}, "a label must be a text"),
        ({"owners": np.zeros(3, np.int64)}, "one owner for each template"),
        ({"owners": np.array([0, 1, 0, 2], np.int32)}, "one owner for each template"),
        ({"owners": np.array([0, 1, 0, 1])}, "every identity of a gallery needs a template"),
        ({"owners": np.array([0, 1, -1, 2])}, "every template an identity"),
        ({"portraits": (portrait(),)}, "a portrait for each template, or none"),
        ({"portraits": (replace(portrait(), box=np.zeros(5, np.float32)), None, None, None)}, "a portrait is bytes"),
        ({"portraits": (replace(portrait(), image="text"), None, None, None)}, "a portrait is bytes"),
        ({"parrots": {"fill": rows(3)}}, "parrot templates do not fit"),
        ({"parrots": {"fill": rows(4).astype(np.float64)}}, "parrot templates do not fit"),
    ],
)
def test_what_does_not_fit_together_is_no_gallery(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GalleryError, match=message):
        replace(three_people(), **changes)
