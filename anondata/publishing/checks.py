"""What must hold before an output is published, and what anybody can check of it afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anondata.errors import PublishError
from anondata.loaders.files.output import CARD
from anondata.policy import UNSAFE

if TYPE_CHECKING:
    from anondata.manifest import Manifest
    from anondata.policy import Policy
    from anondata.randomness import RunKey

Json = Mapping[str, Any]

AUDIT = "audit.json"
EARLIER = ("anondata.audit/1",)
_NOT_LOOKED_AT = ("unpaired_anonymized", "unreadable_original", "unreadable_anonymized", "different_shape")
_BOUND = "audit: {above_chance: 5, attackers: [composite]}"


def checked(
    folder: Path, run_key: RunKey | None, *, own_code: Iterable[str], show: Callable[[int], None]
) -> tuple[Manifest, bool | None]:
    """The manifest of a finished output that is as it was written, and whether its seal was found to hold.

    own_code: modules whose classes the policy may name where the run key does not seal the manifest.

    Raises:
        ManifestError: there is no manifest, or it is damaged or mixes policies.
        PublishError: files were changed since, or the seal does not hold.
    """
    from anondata.manifest import differences, read_manifest

    manifest = read_manifest(folder, own_code=own_code, run_key=run_key)
    sealed = manifest.seal_holds(run_key) if run_key else None
    if sealed is False:
        raise PublishError(
            "the seal of the manifest does not hold: the manifest was edited, or this is not the run key of the "
            "output. Give the right --key-file, or anonymize again"
        )
    found = differences(manifest, folder, ignored=_beside(manifest), show=show)
    if found:
        raise PublishError(
            f"the output was changed since it was written: files {found.words}. Remove what does not belong there "
            "and run the command that wrote it again: it makes again what is missing or changed"
        )
    _check_report(folder, manifest)
    if not manifest.files:
        raise PublishError("the output holds no file: the run released nothing")
    return manifest, sealed


def _beside(manifest: Manifest) -> Iterator[str]:
    """What lies in an output, is written by a run, and is not published."""
    yield from (".anondata/", "report.json", *CARD)
    if manifest.kind == "shards":
        yield "index.json"
        yield from (f"{name.removesuffix('.tar')}.idx" for name in manifest.files)


def _check_report(folder: Path, manifest: Manifest) -> None:
    from anondata.errors import ReportError
    from anondata.report import from_json

    try:
        same = from_json((folder / "report.json").read_text()) == manifest.report
    except (OSError, ReportError, UnicodeDecodeError):
        same = False
    if not same:
        raise PublishError("report.json is missing or was edited since the run; run the same command again")


def read_audit(path: Path) -> Json:
    """The body of an audit.json, or of the one in a folder.

    Raises: PublishError.
    """
    from anondata.verifiers.audit import FORMAT

    file = path / AUDIT if path.is_dir() else path
    try:
        body = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise PublishError(f"there is no {AUDIT}; `anondata audit --original … --out DIR` makes one") from error
    except (OSError, ValueError, RecursionError) as error:
        raise PublishError(f"the audit cannot be read: {type(error).__name__}") from error
    if isinstance(body, dict) and body.get("format") in EARLIER:
        raise PublishError(
            "the audit was made by an earlier version of anondata, whose attackers used face networks alone and did "
            "not see what a few means of a mosaic's cells tell. Run `anondata audit` again"
        )
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise PublishError(f"the audit does not have the format {FORMAT}; run `anondata audit` again")
    return body


def sealed_audit(body: Json, run_key: RunKey | None) -> dict[str, Any]:
    """An audit that nobody without the run key of what it attacked can write or edit; unsealed without one."""
    plain = {name: value for name, value in body.items() if name != "seal"}
    return {**plain, "seal": run_key.name("audit", json.dumps(plain, sort_keys=True))} if run_key else plain


def seal_problems(audit: Json, run_key: RunKey | None) -> Iterator[str]:
    """Why an audit is not taken as one that was made with the run key, where that is at hand."""
    if run_key and audit.get("seal") != sealed_audit(audit, run_key)["seal"]:
        yield (
            "the audit was edited, or made where the run key of the output was not at hand; run `anondata audit` "
            "again, with --run-key if it is not found"
        )


def audit_problems(policy: Policy, audit: Json, *, pictures: int, digest: str) -> Iterator[str]:
    """Why an audit does not allow to publish pictures (how many, and the digest of their contents), as sentences."""
    try:
        yield from _about(audit, pictures, digest)
        yield from _within(policy, audit)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        yield "the audit lacks what it should tell; run `anondata audit` again"


def _about(audit: Json, pictures: int, digest: str) -> Iterator[str]:
    about = audit.get("anonymized", {})
    if (about.get("files"), about.get("digest")) != (pictures, digest):
        yield (
            f"the audit is about other pictures ({about.get('files')}) than these ({pictures}), or about an earlier "
            "state of them; run `anondata audit` on exactly what is published"
        )
    left_out = {name: int(audit["counts"].get(name, 0)) for name in _NOT_LOOKED_AT}
    if any(left_out.values()):
        told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in left_out.items() if count)
        yield f"the audit did not attack all pictures ({told}); mend that and run it again"


def _by_what(attack: Json) -> str:
    network = f" with {attack['network']}" if attack["network"] else ""
    return network + (f" and {attack['releases']} releases of each photo" if attack["releases"] > 1 else "")


def _within(policy: Policy, audit: Json) -> Iterator[str]:
    from anondata.policy import audit_allows

    if policy.name.startswith(UNSAFE):
        yield (
            f"policy {policy.name} is not safe, as its name says: attackers who know the technique see through it. "
            "Anonymize again with another, such as faces"
        )
    if policy.audit is None:
        yield (
            f"policy {policy.name} sets no bound for publishing; write `{_BOUND}` into it, with the most percentage "
            "points above chance that you answer for, and anonymize again"
        )
        return
    attacks = audit["attacks"]
    lacking = sorted(set(policy.audit.attackers) - {one["attacker"] for one in attacks if one["probes"]})
    if lacking:
        yield f"the policy demands attackers that have not tried: {', '.join(lacking)}; audit with them"
    for one in attacks:
        named, chance = float(one["rank1"]["percent"]), float(one["rank1"]["chance_percent"])
        if not 0 < chance <= 100:
            yield f"the audit says of the {one['attacker']} attacker that chance is {chance:g} %; run it again"
        if not audit_allows(policy.audit.above_chance, policy.audit.attackers, one):
            low, high, most = (
                float(one["rank1"]["low"]),
                float(one["rank1"]["high"]),
                chance + policy.audit.above_chance,
            )
            yield (
                f"the {one['attacker']} attacker{_by_what(one)} names {named:.1f} % [{low:.0f}-{high:.0f}] at "
                f"rank 1, and the policy allows {most:.1f} % (chance is {chance:.1f} %); use a stronger "
                "policy, or more people where the interval is wide: few cannot show that it is enough"
            )
