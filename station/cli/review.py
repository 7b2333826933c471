"""`pht-station review`: releases that wait for a person, what would leave with each, and the person's word."""

from pathlib import Path
from typing import Annotated, Any

import typer

from policies.console import JsonOption, echo_json, one_line, say, say_table
from station.cli.program import app
from station.cli.reaching import HomeOption, compute_api, operator_name, write_new
from station.cli.review_pictures import bars, svg

review_app = typer.Typer(
    no_args_is_help=True, help="Releases that wait for a person: look, release, withhold."
)
app.add_typer(review_app, name="review")

NumberArgument = Annotated[int, typer.Argument(help="Of the review, as `review list` shows it.", min=1)]
_MOST_TENSORS = 40


@review_app.command("list")
def review_list(
    home: HomeOption,
    everything: Annotated[bool, typer.Option("--all", help="Also what was decided before.")] = False,
    as_json: JsonOption = False,
) -> None:
    """What waits for a person, until when, and who said what."""
    rows = compute_api(home).get(f"/v1/reviews?everything={str(everything).lower()}")
    if as_json:
        echo_json(rows)
        return
    _show_reviews("Reviews" if everything else "Waiting for a person", rows)


@review_app.command("show")
def review_show(
    number: NumberArgument,
    home: HomeOption,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Also draw the distributions to a new SVG file.")
    ] = None,
    every_tensor: Annotated[bool, typer.Option("--tensors", help="Every tensor, not the first few.")] = False,
    as_json: JsonOption = False,
) -> None:
    """What would leave: numbers, tables, sizes, digests, bits, what was left out, and how the deltas are spread."""
    import httpx  # noqa: PLC0415 - only to write a name into an address

    query = httpx.QueryParams({"actor": operator_name()})
    found = compute_api(home).get(f"/v1/reviews/{number}?{query}")
    payload = found["payload"]
    if picture is not None and payload is not None and payload["arrays"] is not None:
        title = f"Review {number}: {found['review']['policy']} round {found['review']['round']}"
        write_new(picture, svg(title, payload["arrays"]["groups"]))
    if as_json:
        echo_json(found)
        return
    _show_reviews(f"Review {number}", [found["review"]])
    for word in found["review"]["words"]:
        reason = f": {one_line(word['reason'])}" if word["reason"] else ""
        say(f"{word['said']} {word['operator']} said {word['word']}{reason}")
    if payload is None:
        say("It waits no longer; what would have left is not here any more.")
        return
    _show_numbers(payload)
    if payload["arrays"] is not None:
        _show_arrays(payload, every_tensor=every_tensor)
    if picture is not None:
        say(f"picture: {picture.name}" if payload["arrays"] is not None else "no arrays, so no picture")


@review_app.command("release")
def review_release(number: NumberArgument, home: HomeOption, as_json: JsonOption = False) -> None:
    """Let it leave, exactly as it waits; where two people have to say so, each of them."""
    row = compute_api(home).post(f"/v1/reviews/{number}/release", {"actor": operator_name()})
    if as_json:
        echo_json(row)
        return
    _show_reviews("release", [row])
    missing = row["people"] - sum(word["word"] == "release" for word in row["words"])
    if row["state"] == "waiting":
        say(f"It waits on: {max(1, missing)} more person has to release it.")


@review_app.command("withhold")
def review_withhold(
    number: NumberArgument,
    home: HomeOption,
    reason: Annotated[
        str, typer.Option("--reason", help="Why; it stays in the hospital, the researcher is told a code.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Keep it here for good: it is wiped, and its station is left out of that round."""
    row = compute_api(home).post(
        f"/v1/reviews/{number}/withhold", {"actor": operator_name(), "reason": reason}
    )
    if as_json:
        echo_json(row)
        return
    _show_reviews("withhold", [row])


def _show_reviews(title: str, rows: list[dict[str, Any]]) -> None:
    say_table(
        title,
        ("review", "order", "policy", "round", "stage", "state", "released by", "of", "until"),
        [
            [
                row["number"], row["order"].removeprefix("sha256:")[:12], f"{row['policy']} v{row['version']}",
                row["round"], row["stage"], f"{row['state']} {row['code'] or ''}".strip(),
                " ".join(word["operator"] for word in row["words"] if word["word"] == "release") or "nobody",
                row["people"], row["until"],
            ]
            for row in rows
        ],
    )  # fmt: skip


def _show_numbers(payload: dict[str, Any]) -> None:
    if payload["metrics"]:
        say_table("\nNumbers that would leave", ("metric", "value"), sorted(payload["metrics"].items()))
    for key, table in sorted(payload["tables"].items()):
        width = max((len(row) for row in table), default=0)
        say_table(f"\nTable {one_line(key)}", [str(place + 1) for place in range(width)], table)
    if payload["suppressed"]:
        say_table(
            "\nLeft out",
            ("output", "by rule"),
            [[item["key"], item["code"]] for item in payload["suppressed"]],
        )
    patients = "" if payload["patients"] is None else f" (of {payload['patients']} patients; that stays here)"
    say(f"\nexamples    {payload['num_examples']}, rounded{patients}")
    from policies.rules.capacity import bits_in_words  # noqa: PLC0415 - not for every command

    say(f"could carry {bits_in_words(payload['capacity_bits'])} at most")
    say(f"rule set    {payload['rules_digest']}")
    say(f"parked as   {payload['document_digest']}")
    if payload["arrays_digest"]:
        say(f"arrays      {payload['arrays_digest']}")


def _show_arrays(payload: dict[str, Any], *, every_tensor: bool) -> None:
    arrays = payload["arrays"]
    say_table(
        f"\nDeltas: {arrays['elements']:,} numbers in {len(arrays['tensors'])} tensors, norm {arrays['norm']:.4g}",
        ("group", "numbers", "norm", "least", "", "greatest"),
        [
            [
                group["name"], f"{group['elements']:,}", f"{group['norm']:.4g}", f"{group['minimum']:.3g}",
                bars(group["counts"]), f"{group['maximum']:.3g}",
            ]
            for group in arrays["groups"]
        ],
    )  # fmt: skip
    shown = arrays["tensors"] if every_tensor else arrays["tensors"][:_MOST_TENSORS]
    say_table(
        "",
        ("tensor", "type", "shape", "norm", "least", "greatest", "zeros"),
        [
            [
                tensor["name"], tensor["dtype"], "x".join(map(str, tensor["shape"])) or "scalar",
                f"{tensor['norm']:.4g}", f"{tensor['minimum']:.3g}", f"{tensor['maximum']:.3g}", tensor["zeros"],
            ]
            for tensor in shown
        ],
    )  # fmt: skip
    if len(shown) < len(arrays["tensors"]):
        say(f"... and {len(arrays['tensors']) - len(shown)} more; --tensors shows every one.")
    if (apart := payload["difference"]) is not None:
        cosine = "none" if apart["cosine"] is None else f"{apart['cosine']:.3f}"
        say(
            f"\nFrom the release of the round before: distance {apart['norm']:.4g}, its norm {apart['earlier_norm']:.4g}, "
            f"cosine {cosine}"
        )
