"""``sgbench data``: the data sets that are known, and preparing images."""

from typing import Annotated, Literal

import typer

from sgbench.cli import options

app = typer.Typer(help="Data sets: what is known of them, and preparing images.", no_args_is_help=True)


@app.command(name="list", epilog="Examples: sgbench data list | sgbench data list --json")
def list_sets(as_json: options.Json = False) -> None:
    """Show the data sets that have a name, their terms, and how to get them."""
    from sgbench.cli import output
    from sgbench.data import CATALOG

    rows = [
        {
            "name": entry.name,
            "images": ", ".join(f"{part.images} {role}" for role, part in entry.parts.items()),
            "description": entry.description,
            "terms": entry.terms,
            "how": f"{entry.instructions} {entry.homepage}",
        }
        for entry in CATALOG.values()
    ]
    output.print_rows(rows, as_json=as_json)


@app.command(epilog="Examples: sgbench data prepare mine=photos | sgbench data prepare Set5=data/Set5/HR --role test")
def prepare(
    what: Annotated[list[str], typer.Argument(metavar="NAME[=DIR]...", help="Data sets or folders of images.")],
    role: Annotated[Literal["train", "test"], typer.Option(help="What they are for.")] = "train",
    scale: options.Scale = 4,
    as_json: options.Json = False,
) -> None:
    """Decode images once, make the low-resolution ones and pack both; sweeps do so by themselves."""
    from sgbench.cli import output
    from sgbench.plan import pack_set
    from sgbench.spec import Recipe

    recipe = Recipe.model_validate({"scale": scale})
    with output.packing() as progress:
        packed = [pack_set(each, role, recipe, progress) for each in what]
    rows = [
        {"name": each.name, "images": len(each), "sha256": each.sha256[:12], "folder": str(each.path)}
        for each in packed
    ]
    output.print_rows(rows, as_json=as_json)
