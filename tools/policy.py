"""``anondata policy``: which policies there are, whether your own is sound, and what one does, in plain words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from anondata.errors import PolicyError, WeightsError
from anondata.tools._policy_options import own_code_option

if TYPE_CHECKING:
    from anondata.policy import Policy

LIST_FORMAT, EXPLAIN_FORMAT = "anondata.policy_list/1", "anondata.policy/1"
_WHICH = click.argument("policy", metavar="NAME|FILE")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


@click.group("policy")
def command() -> None:
    """List, show, check and explain policies: what is done to which part of a sample."""


@command.command("list")
@_JSON
def list_(as_json: bool) -> None:
    """List the policies that come with anondata: name, kinds of region, and what becomes of them."""
    from anondata.policy import load_policy, presets

    found = [load_policy(name) for name in presets()]
    if as_json:
        rows = [{"name": p.name, "about": p.about, "kinds": _kinds(p), "fingerprint": p.fingerprint} for p in found]
        click.echo(json.dumps({"format": LIST_FORMAT, "policies": rows}))
        return
    width = max(len(p.name) for p in found)
    kinds = max(len(", ".join(_kinds(p))) for p in found)
    for policy in found:
        first = policy.about.partition(". ")[0].rstrip(".")
        click.echo(f"{policy.name:{width}}  {', '.join(_kinds(policy)):{kinds}}  {first}")


@command.command()
@_WHICH
@own_code_option
def show(policy: str, own_code: tuple[str, ...]) -> None:
    """Print a policy as YAML with every parameter: a good start for your own."""
    from anondata.policy import load_policy

    click.echo(load_policy(policy, own_code=own_code).to_yaml(), nl=False)


@command.command()
@_WHICH
@own_code_option
def check(policy: str, own_code: tuple[str, ...]) -> None:
    """Check that a policy can be run here: that it is valid, and that its networks are on this machine.

    Exit code 0: it can, 1: it cannot, and the message says why. Galleries that it needs are named.
    """
    from anondata.policy import load_policy

    made = load_policy(policy, own_code=own_code)
    problems = list(_problems(made))
    for name, options in _galleries(made).items():
        how = f"`anondata gallery build PHOTOS --out FILE{options}` makes one"
        click.echo(f"needs a gallery: --gallery {name}=FILE; {how}", err=True)
    for kind in _not_looked_for(made):
        click.echo(
            f"note: no detector looks for {kind!r}; only boxes and masks that come with samples count", err=True
        )
    for step, kind, suits in _unsuited(made):
        click.echo(f"note: {step} is made for {suits}, and is used on {kind!r}", err=True)
    if made.audit is None:
        click.echo("note: no audit: bound, so `anondata publish` will refuse what it makes", err=True)
    if problems:
        raise PolicyError(f"policy {made.name!r} cannot be run here:\n  " + "\n  ".join(problems))
    click.echo(f"{made.name}: good, {made.fingerprint}")


@command.command()
@_WHICH
@own_code_option
@_JSON
def explain(policy: str, own_code: tuple[str, ...], as_json: bool) -> None:
    """Say in plain words what is done, what is checked, what is left at most, and what stays as it is."""
    from anondata.cards._bounds import bounds
    from anondata.cards._limits import left_alone
    from anondata.cards._words import sentences
    from anondata.policy import load_policy

    made = load_policy(policy, own_code=own_code)
    done, stays = sentences(made), left_alone(made)
    if as_json:
        told = {"name": made.name, "fingerprint": made.fingerprint, "about": made.about, "done": done, "stays": stays}
        click.echo(json.dumps({"format": EXPLAIN_FORMAT, **told, "bounds": bounds(made)}))
        return
    about = [made.about] if made.about else []
    blocks = [f"{made.name} ({made.fingerprint})", *about, "What is done:", *(f"- {line}" for line in done)]
    blocks += ["What stays:", *(f"- {line}" for line in stays)] if stays else []
    for block in blocks:
        click.echo(click.wrap_text(block, 100, subsequent_indent="  " if block.startswith("-") else ""))


def _not_looked_for(policy: Policy) -> list[str]:
    """Kinds that no detector finds, where all of them say what they find."""
    from anondata.components import kinds_of

    return [
        kind
        for content in policy.own.values()
        if all(kinds_of(step.make()) for step in content.detect)
        for kind in content.regions
        if kind not in content.looked_for
    ]


def _unsuited(policy: Policy) -> Iterator[tuple[str, str, str]]:
    """Techniques and gates that are made for other kinds, each with the kind that it is used on."""
    from anondata.components import kinds_of

    for content in policy.own.values():
        for kind, region in content.regions.items():
            for step in (*region.ladder, *region.verify, *region.utility):
                suits = kinds_of(step.make())
                if suits and kind not in suits:
                    yield step.name, kind, " and ".join(suits)


def _kinds(policy: Policy) -> list[str]:
    return [kind for content in policy.own.values() for kind in content.regions]


def _galleries(policy: Policy) -> dict[str, str]:
    """What `anondata gallery build` must be told for each gallery that a policy names, by its name."""
    from anondata.protocols import NeedsGalleries

    made = [step.make() for step in _steps(policy)]
    looking = [one for one in made if isinstance(one, NeedsGalleries)]
    return dict(sorted((name, getattr(one, "gallery_options", "")) for one in looking for name in one.galleries))


def _steps(policy: Policy) -> Iterator[Any]:
    """Every step of a policy."""
    for content in policy.own.values():
        yield from (*content.detect, *(content.scan.detect if content.scan else ()))
        for region in content.regions.values():
            yield from (
                *((region.pseudonyms,) if region.pseudonyms else ()),
                region.cover,
                *region.ladder,
                *region.verify,
                *region.utility,
            )
            yield from region.tiny.ladder if region.tiny else ()


def _problems(policy: Policy) -> Iterator[str]:
    """What is missing on this machine for a policy to run."""
    from anondata.models import registry
    from anondata.preparing import check_weights, weights_of

    try:
        check_weights(policy)
    except WeightsError as error:
        yield str(error)
    for item in filter(registry.is_here, weights_of(policy)):
        try:
            registry.verify(item)
        except WeightsError as error:
            yield str(error)
