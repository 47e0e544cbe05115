"""The command line of `understudy`: the commands, their options, and one plain line for every mistake of input.

A command imports what it needs when it is called, so that the help and the refusal of a typing mistake come at once.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from actors.command.bad_input import BadInput
from actors.command.cluster_app import cluster_app
from actors.command.demo import FEWEST, MOST
from actors.command.journal_app import COMMANDS as JOURNAL_COMMANDS
from actors.command.journal_app import add_commands

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from rich.console import Console

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Get every answer from unreliable, rate-limited, paid providers: with retries, reroutes and a budget.",
    epilog="Begin with: understudy demo",
)
# Raised if the parser refuses the arguments; the name of click's class differs between versions of typer.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

# The arguments and options of `understudy run`.
MarketPath = Annotated[
    str, typer.Argument(metavar="MARKET.toml", help="The providers, their prices, and the policies.")
]
RequestsPath = Annotated[
    str,
    typer.Argument(
        metavar="REQUESTS.jsonl",
        help='One JSON object a line: {"id": 1, "service": "uppercase", "input": "any JSON"}, and if wanted '
        '"budget": "0.02" (dollars), "risk": "0.05" (what may be paid twice), '
        '"timeout": 5 (seconds), "where": {"min_reputation": 70}. '
        '"-" reads standard input.',
    ),
]
ResultsPath = Annotated[
    str, typer.Option(metavar="FILE", help="Where each outcome is written, a JSON line as it comes ('-': stdout).")
]
MaxConcurrency = Annotated[int, typer.Option(metavar="N", help="Requests under way at the same time.")]
RateLimit = Annotated[
    float | None, typer.Option(metavar="R", help="Requests begun per second.", show_default="no limit")
]
Budget = Annotated[
    str | None,
    typer.Option(
        metavar="USD",
        help='Dollars for the whole run, such as "2.50"; or in each period, such as "20/day".',
        show_default="no limit",
    ),
]
StrategyName = Annotated[
    str, typer.Option(metavar="S", help="The provider to call first: best, cheapest, fastest or balanced.")
]
Timeout = Annotated[
    float, typer.Option(metavar="S", help="Seconds for a request with all its calls, unless its line has its own.")
]
HealthCheck = Annotated[
    bool, typer.Option("--health-check", help="Check the health of a provider before it is called.")
]
ReportPath = Annotated[str | None, typer.Option(metavar="FILE", help="Where the closing report is written, as JSON.")]
HtmlPath = Annotated[
    str | None, typer.Option("--html", metavar="FILE", help="Where a page of what happened is written, as HTML.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files at --out, --report and --html that have content.")
]
JournalPath = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Where the run is kept, so that the same command goes on with it.",
        show_default="OUT.journal; nowhere for '-'",
    ),
]
Fresh = Annotated[
    int,
    typer.Option("--fresh", count=True, help="Ask for everything again; twice, if money was spent already."),
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Ask again for what has failed before.")]
RetryUnknown = Annotated[
    bool,
    typer.Option("--retry-unknown", help="Pay again for what may have been paid, or was paid, and has no answer."),
]
AcceptChanges = Annotated[
    bool, typer.Option("--accept-changes", help="Go on although the requests or the market are others than before.")
]
Park = Annotated[
    bool, typer.Option("--park", help="Let what meets a reset beyond its time, as of a day's quota, wait for it.")
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help='Make the calls on the nodes of this Ray cluster; "auto": the one that runs here, or a new one.',
        show_default="make them here",
    ),
]
Dashboard = Annotated[
    bool, typer.Option("--dashboard", help="Serve the live page, and say where, with the token that opens it.")
]
DashboardActs = Annotated[
    bool, typer.Option("--dashboard-acts", help="Let those who look, by `understudy top` too, act as well.")
]
DashboardToken = Annotated[
    str | None,
    typer.Option(
        metavar="${NAME}", help="The variable that holds the page's token.", show_default="made up at the start"
    ),
]
Traces = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Record this share of the requests, from 0 to 1, and all that a client traces, by OpenTelemetry.",
        show_default="no traces",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no report.")]


@app.command(
    short_help="Answer every request of a file.",
    epilog="Example: understudy run market.toml requests.jsonl --out results.jsonl --budget 0.50 --rate-limit 20",
)
def run(
    market: MarketPath,
    requests: RequestsPath,
    *,
    out: ResultsPath,
    max_concurrency: MaxConcurrency = 10,
    rate_limit: RateLimit = None,
    budget: Budget = None,
    strategy: StrategyName = "balanced",
    timeout: Timeout = 30.0,
    health_check: HealthCheck = False,
    report: ReportPath = None,
    html: HtmlPath = None,
    overwrite: Overwrite = False,
    journal: JournalPath = None,
    fresh: Fresh = 0,
    retry_failed: RetryFailed = False,
    retry_unknown: RetryUnknown = False,
    accept_changes: AcceptChanges = False,
    park: Park = False,
    ray: RayAddress = None,
    traces: Traces = None,
    dashboard: Dashboard = False,
    dashboard_acts: DashboardActs = False,
    dashboard_token: DashboardToken = None,
    quiet: Quiet = False,
) -> int:
    """Answer every request of a file, and write a line of results for each as it finishes.

    A line of results is {"id", "status": "done|failed|paid|budget|unknown", "output", "provider", "cost", "attempts",
    "error", "key"}. "budget" means that too little money was left. "unknown" means that a provider may have been paid
    although no answer came: look it up before you pay again. "paid" means that it was, and that its answer cannot be
    had. Progress and report go to standard error.

    The run is kept in a journal. However it ends, the same command goes on: it asks for what is not answered and has
    not failed, within the same budget, and pays for nothing twice.

    With --ray, the calls are made on the nodes of a cluster, within the same limits and budget. The journal, the
    results and the money stay here; a node that is lost loses none of them.

    Exit codes: 0 all done, 1 some failed, unknown, or paid without an answer, 2 bad input (nothing was called, nothing
    spent), 3 budget exhausted, 130 interrupted (143 by SIGTERM, 129 by SIGHUP). Finished requests are in the file,
    which has only whole lines.
    """
    from actors.command.live_page import page_options
    from actors.command.on_nodes import check_ray
    from actors.command.plan import (
        Options,
        Plan,
        check_folder,
        check_journal,
        digest_of_market,
        journal_of,
        read_market,
        tracing_of,
    )
    from actors.command.requests_file import read_requests
    from actors.command.results_file import OutputFile
    from actors.command.run import make_run

    check_ray(ray, traces=traces)
    options = Options(
        max_concurrency=max_concurrency,
        rate_limit=rate_limit,
        budget=budget,
        strategy=strategy,
        timeout=timeout,
        health_check=health_check,
        journal=journal_of(out, journal),
        fresh=fresh,
        retry_failed=retry_failed,
        retry_unknown=retry_unknown,
        accept_changes=accept_changes,
        park=park,
        ray=ray,
    )
    plan = Plan(
        market=read_market(market),
        requests=tuple(read_requests(requests)),
        options=options,
        market_path=market,
        market_digest=digest_of_market(market),
        page=page_options(is_wanted=dashboard, may_act=dashboard_acts, token=dashboard_token),
        tracing=tracing_of(traces),
    )
    with ExitStack() as stack:
        goes_on = options.journal is not None and check_journal(options.journal)
        results = OutputFile("--out", out, overwrite=overwrite, goes_on=goes_on, inputs=[market, requests])
        stack.callback(results.close)
        if options.journal is not None:
            check_folder(options.journal)
        report_file = None
        if report is not None:
            others = [market, requests, out]
            report_file = OutputFile("--report", report, overwrite=overwrite, goes_on=goes_on, inputs=others)
            stack.callback(report_file.close)
        page = None
        if html is not None:
            others = [market, requests, out, *([report] if report is not None else [])]
            page = OutputFile("--html", html, overwrite=overwrite, goes_on=goes_on, inputs=others)
            stack.callback(page.close)
        code, _ = make_run(plan, results=results, report=report_file, html=page, console=error_console(), quiet=quiet)
    return code


@app.command(
    "check",
    short_help="Say what a run would meet and cost, without a call.",
    epilog="Example: understudy check market.toml requests.jsonl --budget 0.50 --rate-limit 20",
)
def show_check(
    market: MarketPath,
    requests: RequestsPath,
    *,
    out: Annotated[
        str, typer.Option(metavar="FILE", help="The results of the run that would go on, if there is one.")
    ] = "-",
    journal: JournalPath = None,
    max_concurrency: MaxConcurrency = 10,
    rate_limit: RateLimit = None,
    budget: Budget = None,
) -> int:
    """Say what a run would meet: bad lines, services that no provider offers, requests that none can take.

    It also says what the run would cost, from presumably to at most, and how long it would take by the limits that are
    known; and if it goes on with an earlier one, what that leaves to do. It calls nothing and spends nothing.

    Exit codes: 0 every request can be served, 2 bad input, or a request that cannot be.
    """
    from actors.command.check import check
    from actors.command.plan import Options, journal_of

    options = Options(
        max_concurrency=max_concurrency, rate_limit=rate_limit, budget=budget, journal=journal_of(out, journal)
    )
    return check(market, requests, options=options)


@app.command(
    short_help="Show every provider, and whether it is healthy.", epilog="Example: understudy providers market.toml"
)
def providers(market: MarketPath) -> int:
    """Show every provider of a market: its services, price and limits, and whether it is healthy now.

    The health checks run at the same time and cost nothing.

    Exit codes: 0 all healthy, 1 at least one is not, 2 bad input.
    """
    from rich.console import Console

    from actors.command.plan import read_market
    from actors.command.providers import show_providers

    return show_providers(read_market(market), Console(width=None if sys.stdout.isatty() else 160))


@app.command(
    short_help="Show what models cost by the price list.", epilog="Example: understudy prices claude-sonnet-4-6"
)
def prices(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", show_default="say which list it is")] = None,
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who sells it.", show_default="who makes it")
    ] = None,
) -> int:
    """Show what a model costs, in dollars for a million tokens, by the price list that comes with the package.

    Exit codes: 0 it is listed, 1 it is not.
    """
    from rich.console import Console

    from actors.command.prices import show_prices

    return show_prices(Console(width=None if sys.stdout.isatty() else 160), model, provider)


@app.command(
    "demo",
    short_help="Watch a run over three model servers that fail.",
    epilog="Example: understudy demo --keep demo-files",
)
def show_demo(
    requests: Annotated[int, typer.Option(metavar="N", help=f"The number of requests, from {FEWEST} to {MOST}.")] = 300,
    seed: Annotated[int, typer.Option(metavar="N", help="Decides the texts and the failures.")] = 1,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="The folder to keep the servers' files, results and report in.", show_default="no files"
        ),
    ] = None,
) -> int:
    """Watch a run over three model servers that fail, break off and throttle; it takes about 12 seconds.

    The servers are `understudy fake` on this machine, and end with the demo. Nothing leaves the machine, and it costs
    nothing. It needs the extra `serve`.

    Exit codes: 0 at least 99 % were answered while a breaker tripped, and the servers' books agree with ours, 1 not so
    (it says what is missing), 2 bad input, 130 interrupted.
    """
    from actors.command.demo.demo import demo

    return demo(error_console(), requests=requests, seed=seed, keep=keep)


@app.command(
    "simulate",
    short_help="Run a scenario in virtual time, with many seeds.",
    epilog="Example: understudy simulate rehearsals.py::survives_an_outage --seed 17 --keep 1",
)
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
        typer.Option(metavar="1,4", help="With --seed: apply only these faults, or none.", show_default="all"),
    ] = None,
    events: Annotated[
        int | None, typer.Option(metavar="N", help="With --seed: the number of events shown.", show_default="20")
    ] = None,
    html: Annotated[
        str | None, typer.Option("--html", metavar="FILE", help="With --seed: write a page of what happened.")
    ] = None,
    logs: Annotated[bool, typer.Option("--logs", help="With --seed: write the program's log lines.")] = False,
    seeds: Annotated[
        int | None, typer.Option(metavar="N", help="Run the seeds from 0 to N - 1.", show_default="100")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(metavar="N", help="The number of processes that share the seeds.", show_default="2")
    ] = None,
    order: Annotated[
        str, typer.Option(metavar="O", help="seeded: the seed decides the order; fifo: as in production.")
    ] = "seeded",
    max_steps: Annotated[
        int | None,
        typer.Option(metavar="N", help="A run with more steps fails.", show_default="20 million"),
    ] = None,
) -> int:
    """Run a scenario in virtual time, with many seeds or with one, and show what fails.

    Of many seeds, it shows the smallest that fails, with the faults it needs, and the command that repeats it.

    Exit codes: 0 passed, 1 failed, 2 bad input, 130 interrupted.
    """
    from actors.command.simulate import Rehearsal, simulate

    rehearsal = Rehearsal(
        scenario=scenario,
        seed=seed,
        keep=keep,
        events=events,
        logs=logs,
        html=html,
        seeds=seeds,
        processes=processes,
        order=order,
        max_steps=max_steps,
    )
    return simulate(rehearsal)


@app.command(
    "fake",
    short_help="Serve a model provider that fails by seed.",
    epilog="Example: understudy fake servers.toml --port 8080 --plan faults.toml",
)
def serve_fake(
    config: Annotated[
        str | None,
        typer.Argument(metavar="CONFIG.toml", help="The models, prices, limits and faults.", show_default="one model"),
    ] = None,
    *,
    port: Annotated[int, typer.Option(metavar="N", help="The port; 0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="A loopback address.")] = "127.0.0.1",
    plan: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The faults, instead of those of the config.", show_default="the config's"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Decides answers and faults.", show_default="the config's, or 0")
    ] = None,
    until_eof: Annotated[
        bool,
        typer.Option("--until-eof", help="End with standard input too, so as not to outlive the program that has it."),
    ] = False,
) -> int:
    """Serve a model provider that fails by seed, on this machine alone, until it is interrupted.

    It speaks OpenAI's chat completions, Responses and embeddings, and Anthropic's Messages. The first line of standard
    output is {"url": ...}. GET /books tells what it charged, and POST /plan changes its faults.

    It needs the extra `serve`. Exit codes: 2 bad input, 130 interrupted (143 by SIGTERM).
    """
    from actors.command.fake import read_fake, serve

    return serve(read_fake(config, plan=plan, seed=seed), host=host, port=port, until_eof=until_eof)


@app.command(
    "serve",
    short_help="Answer the clients of model APIs by a base URL.",
    epilog="Example: understudy serve market.toml --keys keys.jsonl --port 8080",
)
def serve_door(
    market: MarketPath,
    *,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The address; one that others reach needs --keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help="The port; 0 takes a free one.")] = 8080,
    keys: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="The keys of tenants, made by `understudy key new`.", show_default="this machine only"
        ),
    ] = None,
    journal: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Where money and receipts are kept.", show_default="MARKET.toml.journal"),
    ] = None,
    safety: Annotated[
        str,
        typer.Option(metavar="S", help="What the journal outlives: a power cut (power), or the process (process)."),
    ] = "power",
    drain: Annotated[
        float, typer.Option(metavar="S", help="Seconds that requests under way have to end after a signal.")
    ] = 30.0,
    watch: Annotated[
        bool, typer.Option("--watch", help="Read market and keys again when they change, and not only at a SIGHUP.")
    ] = False,
    log: Annotated[
        str | None,
        typer.Option(
            metavar="F",
            help="A line for each request, attempt and alert on standard error: json or text.",
            show_default="no lines",
        ),
    ] = None,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Metrics for Prometheus at /metrics, for this machine alone.")
    ] = False,
    traces: Traces = None,
    dashboard: Dashboard = False,
    dashboard_acts: DashboardActs = False,
    dashboard_token: DashboardToken = None,
    dashboard_host: Annotated[
        list[str] | None, typer.Option(metavar="HOST:PORT", help="A name that the page is asked for by, too.")
    ] = None,
) -> int:
    """Answer the clients of model APIs, in any language, by a base URL: the first line of standard output names it.

    It speaks OpenAI's chat completions, Responses and embeddings, and Anthropic's Messages. Without keys, it serves
    only this machine. The first SIGINT or SIGTERM ends it once what is under way has ended, the second one at once.

    It needs the extra `serve`. Exit codes: 2 bad input, 130 interrupted (143 by SIGTERM).
    """
    with needing_serve():
        from actors.command.live_page import page_options
        from actors.command.serve import ServeOptions, serve

        options = ServeOptions(
            market=market,
            host=host,
            port=port,
            keys=keys,
            journal=journal or f"{market}.journal",
            safety=safety,
            drain=drain,
            watch=watch,
            log=log,
            metrics=metrics,
            traces=traces,
            page=page_options(
                is_wanted=dashboard,
                may_act=dashboard_acts,
                token=dashboard_token,
                hosts=tuple(dashboard_host or ()),
            ),
        )
    return serve(options)


@app.command(
    short_help="Look at a program that runs, in the terminal.",
    epilog="Example: understudy top",
)
def top(
    where: Annotated[
        str | None,
        typer.Argument(
            metavar="[WHERE]", help="A process id, a socket, or the URL of a page.", show_default="the one that runs"
        ),
    ] = None,
    *,
    token_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The file with the token of the page.", show_default="$UNDERSTUDY_TOKEN"),
    ] = None,
) -> int:
    """Look at a program that runs: its providers, its money, what waits for what, its actors, and what went wrong.

    It finds `understudy run` and `understudy serve` of this user by themselves, and any program with a LocalSocket.
    Keys act on what is selected, if the program allows acts (--dashboard-acts).

    It needs the extra `tui`. Exit codes: 0 it was left, 2 bad input, such as no program, or a wrong token.
    """
    from actors.command.top.top import top as show_top

    return show_top(where, token_file=token_file)


keys_app = typer.Typer(help="Make and revoke the keys of tenants of `understudy serve`.")
app.add_typer(keys_app, name="key")
KeysPath = Annotated[str, typer.Option("--keys", metavar="FILE", help="The file of keys; it holds no secret.")]


@keys_app.command("new", short_help="Make a key, and show it this once.")
def new_key(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="The tenant that it belongs to.")],
    *,
    keys: KeysPath = "keys.jsonl",
    days: Annotated[
        float | None, typer.Option(metavar="N", help="The days until it expires.", show_default="never")
    ] = None,
    priority: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="high, normal or low, if lower than the tenant's.", show_default="tenant's"),
    ] = None,
) -> int:
    """Make a key for a tenant, add it to the file, and show it this once on standard output.

    Exit codes: 2 bad input.
    """
    with needing_serve():
        from actors.command.serve import make_key
    return make_key(keys, tenant, days=days, priority=priority)


@keys_app.command("revoke", short_help="Revoke a key.")
def revoke(
    identity: Annotated[str, typer.Argument(metavar="ID", help="The id of the key, its middle part.")],
    *,
    keys: KeysPath = "keys.jsonl",
    now: Annotated[bool, typer.Option("--now", help="End what is under way for it, too.")] = False,
) -> int:
    """Revoke a key from now on; a door that runs refuses it once it has read the file again (SIGHUP, or --watch).

    Exit codes: 2 bad input.
    """
    with needing_serve():
        from actors.command.serve import revoke_key
    return revoke_key(keys, identity, now=now)


@contextmanager
def needing_serve() -> Generator[None]:
    """Say which extra is missing. Raises `BadInput`."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise BadInput(f"this needs the extra `serve`: pip install 'understudy[serve]' ({error})") from error


app.add_typer(cluster_app, name="cluster")
add_commands(app)
COMMANDS = frozenset(
    ("run", "check", "providers", "prices", "demo", "simulate", "fake", "serve", "top", "key", "cluster")
).union(JOURNAL_COMMANDS)


def error_console() -> Console:
    """Return the console of standard error; if that is not a terminal, lines may be long."""
    from actors.command.display import ErrorConsole

    return ErrorConsole(stderr=True, width=None if sys.stderr.isatty() else 120)


def say(text: str) -> None:
    """Write an error to standard error."""
    from actors.command.progress import write_error

    write_error(text)


def run_app(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    try:
        code: object = app(args=list(arguments) or ["--help"], prog_name="understudy", standalone_mode=False)
    except BadInput as error:
        say(f"error: {error}\n")
        return 2
    except UsageError as error:
        command = " ".join(["understudy", *(name for name in arguments[:1] if name in COMMANDS)])
        message: object = getattr(error, "format_message", error.__str__)()
        say(f"error: {message}\nhelp: {command} --help\n")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 130
    return code if isinstance(code, int) else 0
