"""Ringmeter's command line: ``python main.py COMMAND …``, without one ``run``; each command has ``--help``.

Exit status: 0 when well, 1 when a command found something wrong, 2 on wrong use or wrong configuration.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
from collections.abc import Sequence

# What is imported lives on: looking through it for what does not, again and again, is a sixth of the time of a start.
gc.disable()
try:
    from server import (
        cli_admin,
        cli_audit,
        cli_backup,
        cli_blocks,
        cli_calls,
        cli_docs,
        cli_doctor,
        cli_migrate,
        cli_payments,
        cli_payouts,
        cli_receipt,
        cli_reports,
        cli_run,
        cli_trail,
        cli_users,
        cli_wallets,
    )
    from server.config import ConfigFault, load_config
    from server.logs import configure_logs
except ModuleNotFoundError as missing:
    # One of our own modules that is missing is a fault of ours, and its traceback says where.
    if (missing.name or "").partition(".")[0] in ("models", "handlers", "server"):
        raise
    print(
        f"{sys.executable} does not have Ringmeter's dependencies ({missing.name} is missing): "
        "start it with .venv/bin/python main.py, or with make run, which installs them.",
        file=sys.stderr,
    )
    sys.exit(2)
finally:
    gc.enable()


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, read the configuration, run the command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="main.py", description="Ringmeter: calls that are paid by the minute."
    )
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    modules = {
        "run": cli_run,
        "worker": cli_run,
        "doctor": cli_doctor,
        "calls": cli_calls,
        "users": cli_users,
        "blocks": cli_blocks,
        "wallets": cli_wallets,
        "payments": cli_payments,
        "payouts": cli_payouts,
        "reports": cli_reports,
        "admin": cli_admin,
        "trail": cli_trail,
        "audit": cli_audit,
        "verify-receipt": cli_receipt,
        "backup": cli_backup,
        "restore": cli_backup,
        "migrate": cli_migrate,
        "docs": cli_docs,
    }
    for module in dict.fromkeys(modules.values()):
        module.add_parser(commands)
    words = list(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(words or ["run"])
    if args.command is None:
        parser.print_help()
        return 2
    try:
        config = load_config()
    except ConfigFault as fault:
        print("The configuration has faults:", file=sys.stderr)
        for sentence in fault.faults:
            print(f"  {sentence}", file=sys.stderr)
        return 2
    # Lines of the log never come between the words of an answer; who looks on wants the answer alone.
    configure_logs("warning" if sys.stderr.isatty() else config.log_level, production=config.production)
    runner = cli_run.event_loop_factory() if args.command in ("run", "worker") else None
    with asyncio.Runner(loop_factory=runner) as loop:
        return loop.run(modules[args.command].run(args, config))


if __name__ == "__main__":
    sys.exit(main())
