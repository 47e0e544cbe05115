"""The command line: what each command takes, and how every mistake of input becomes one plain line."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from actors.command.bad_input import BadInput
from actors.command.demo.demo import FEWEST, MOST, demo
from actors.command.plan import Options, Plan
from actors.command.progress import write_error
from actors.command.providers import show_providers
from actors.command.requests_file import read_requests
from actors.command.results_file import OutputFile
from actors.command.run import make_run
from actors.command.simulate import Rehearsal, simulate
from actors.market.file import load_market
from actors.market.market import MarketError

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_CODES = (
    "Exit codes: 0 all done; 1 some failed or unknown; 2 bad input, nothing was called or spent; "
    "3 budget exhausted; 130 interrupted (143 by SIGTERM)."
)

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Get every answer from unreliable, rate-limited, paid providers: with retries, reroutes and a budget.",
    epilog="Begin with: understudy demo",
)
# Where the parser refuses the arguments; click's own name for it differs between versions of typer.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

MarketPath = Annotated[
    str, typer.Argument(metavar="MARKET.toml", help="Who can be called, at what price, and the policies.")
]


@app.command(
    epilog="Example: understudy run market.toml requests.jsonl --out results.jsonl --budget 0.50 --rate-limit 20"
)
def run(
    market: MarketPath,
    requests: Annotated[
        str,
        typer.Argument(
            metavar="REQUESTS.jsonl",
            help='One JSON object a line: {"id": 1, "service": "uppercase", "input": "any JSON"}, and if wanted '
            '"budget": "0.02" (dollars), "timeout": 5 (seconds), "where": {"min_reputation": 70}. '
            '"-" reads standard input.',
        ),
    ],
    *,
    out: Annotated[
        str,
        typer.Option(metavar="FILE", help="Where each outcome is written, a JSON line as it comes ('-': stdout)."),
    ],
    max_concurrency: Annotated[int, typer.Option(metavar="N", help="Requests under way at the same time.")] = 10,
    rate_limit: Annotated[
        float | None,
        typer.Option(metavar="R", help="Requests begun per second.", show_default="no limit"),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="USD", help='Dollars for the whole run, such as "2.50".', show_default="no limit"),
    ] = None,
    strategy: Annotated[
        str, typer.Option(metavar="S", help="Whom to call first: best, cheapest, fastest or balanced.")
    ] = "balanced",
    timeout: Annotated[
        float, typer.Option(metavar="S", help="Seconds for a request with all its calls, unless its line says other.")
    ] = 30.0,
    health_check: Annotated[
        bool, typer.Option("--health-check", help="Ask for a provider's health before it is called.")
    ] = False,
    report: Annotated[
        str | None, typer.Option(metavar="FILE", help="Where the closing report is written, as JSON.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files at --out and --report that have content.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no report.")] = False,
) -> int:
    """Answer every request of a file, one line of results for each as it finishes.

    A line of results is {"id", "status": "done|failed|unknown", "output", "provider", "cost", "attempts", "error"}.
    "unknown" means that a provider may have been paid although no answer came: look it up before asking again.
    Progress and report go to standard error.

    Exit codes: 0 all done, 1 some failed or unknown, 2 bad input (nothing was called, nothing spent), 3 budget
    exhausted, 130 interrupted (143 by SIGTERM); what had finished is in the file, and only whole lines.
    """
    options = Options(
        max_concurrency=max_concurrency,
        rate_limit=rate_limit,
        budget=budget,
        strategy=strategy,
        timeout=timeout,
        health_check=health_check,
    )
    plan = Plan(market=load_market(market), requests=tuple(read_requests(requests)), options=options)
    with ExitStack() as stack:
        results = OutputFile("--out", out, overwrite=overwrite, inputs=[market, requests])
        stack.callback(results.close)
        report_file = None
        if report is not None:
            report_file = OutputFile("--report", report, overwrite=overwrite, inputs=[market, requests, out])
            stack.callback(report_file.close)
        code, _ = make_run(plan, results=results, report=report_file, console=error_console(), quiet=quiet)
    return code


@app.command(epilog="Example: understudy providers market.toml")
def providers(market: MarketPath) -> int:
    """Show every provider of a market: what it offers, its price and limits, and whether it is healthy now.

    The health checks are made at the same time and cost nothing.

    Exit codes: 0 all healthy, 1 at least one is not, 2 bad input.
    """
    return show_providers(load_market(market), Console(width=None if sys.stdout.isatty() else 160))


@app.command("demo", epilog="Example: understudy demo --keep demo-files")
def show_demo(
    requests: Annotated[
        int, typer.Option(metavar="N", help=f"How many requests are made, from {FEWEST} to {MOST}.")
    ] = 300,
    seed: Annotated[int, typer.Option(metavar="N", help="Another seed has other texts and other failures.")] = 1,
    keep: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Keep market, requests, results and report there.", show_default="no files"),
    ] = None,
) -> int:
    """Watch a run over three providers that fail, brown out and throttle; it takes about 20 seconds.

    The providers are real HTTP servers on this machine, and end with the demo. Nothing leaves the machine.

    Exit codes: 0 at least 99 % were answered while a breaker tripped and requests were rerouted, 1 something of
    this is missing (it is named), 2 bad input, 130 interrupted.
    """
    return demo(error_console(), requests=requests, seed=seed, keep=keep)


@app.command("simulate", epilog="Example: understudy simulate rehearsals.py::survives_an_outage --seed 17 --keep 1")
def show_simulation(
    scenario: Annotated[
        str, typer.Argument(metavar="FILE.py::FUNCTION", help="An async function; its parameter is the simulation.")
    ],
    *,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Run this seed alone, and show its last events.")
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(metavar="1,4", help="With --seed: let only these faults strike, or none.", show_default="all"),
    ] = None,
    events: Annotated[
        int | None, typer.Option(metavar="N", help="With --seed: how many events are shown.", show_default="20")
    ] = None,
    logs: Annotated[bool, typer.Option("--logs", help="With --seed: write the program's log lines.")] = False,
    seeds: Annotated[
        int | None, typer.Option(metavar="N", help="Run the seeds from 0 to N - 1.", show_default="100")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(metavar="N", help="How many processes share the seeds.", show_default="2")
    ] = None,
    order: Annotated[
        str, typer.Option(metavar="O", help="seeded: the seed decides who goes first; fifo: as in production.")
    ] = "seeded",
    max_steps: Annotated[
        int | None,
        typer.Option(metavar="N", help="The turns after which a run has failed.", show_default="20 million"),
    ] = None,
) -> int:
    """Run a scenario in virtual time, with many seeds or with one, and say what fails.

    Of many seeds the smallest that fails is shown, with the faults it takes, and the command that repeats it.

    Exit codes: 0 passed, 1 failed, 2 bad input, 130 interrupted.
    """
    rehearsal = Rehearsal(
        scenario=scenario,
        seed=seed,
        keep=keep,
        events=events,
        logs=logs,
        seeds=seeds,
        processes=processes,
        order=order,
        max_steps=max_steps,
    )
    return simulate(rehearsal)


COMMANDS = frozenset({"run", "providers", "demo", "simulate"})


def error_console() -> Console:
    """Return the console of standard error; where that is no terminal, lines may be long."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else 120)


def run_app(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    try:
        code: object = app(args=list(arguments) or ["--help"], prog_name="understudy", standalone_mode=False)
    except (BadInput, MarketError) as error:
        write_error(f"error: {error}\n")
        return 2
    except UsageError as error:
        command = " ".join(["understudy", *(name for name in arguments[:1] if name in COMMANDS)])
        message: object = getattr(error, "format_message", error.__str__)()
        write_error(f"error: {message}\nhelp: {command} --help\n")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 130
    return code if isinstance(code, int) else 0
