"""Where the program begins. It loads the command line, and can be interrupted while it does."""

from sidecar.interrupts import EndedByInterrupt


def main() -> None:
    """Load the command line and run it."""
    with EndedByInterrupt():
        from sidecar.command_line import cli, find_brought_programs  # noqa: PLC0415 - it may take a second

    find_brought_programs()
    cli(prog_name="mcp-sidecar")


if __name__ == "__main__":
    main()
