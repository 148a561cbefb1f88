"""``sgbench table``: the scores of a store."""

from sgbench.cli import options

EXAMPLES = "Examples: sgbench table | sgbench table --results results/quick --metric lpips_alex --json"


def table(
    results: options.Results = None,
    backbone: options.Backbones = None,
    loss: options.Losses = None,
    test: options.Tests = None,
    metric: options.Metrics = None,
    as_json: options.Json = False,
) -> None:
    """Show the scores of a store: mean ± sample standard deviation over the seeds.

    A cell without a number says why. The best of each block is bold.
    """
    from sgbench.cli import output

    output.print_results(
        options.find_store(results), as_json=as_json, backbones=backbone, losses=loss, datasets=test, metrics=metric
    )
