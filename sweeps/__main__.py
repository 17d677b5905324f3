"""The programs `sweeps` and `wsss`, also as `python -m sweeps` and `python -m wsss`."""

from importlib import import_module

from sweeps.run.signals import as_ctrl_c


def start(program: str, module: str) -> None:
    """Run a program. A signal ends it without a traceback, and with what it had begun removed."""
    try:
        with as_ctrl_c():
            import_module(module).app(prog_name=program)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def sweeps() -> None:
    """Run the program of tables."""
    start("sweeps", "sweeps.cli")


def wsss() -> None:
    """Run the program of single stages."""
    start("wsss", "sweeps.cli.method")


if __name__ == "__main__":
    sweeps()
