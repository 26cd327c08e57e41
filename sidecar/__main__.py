"""Where the program begins. It loads the command line, and can be interrupted while it does."""

import signal


def main() -> None:
    """Load the command line and run it.

    Loading takes a second on a slow machine. Ctrl-C in that time ends the process as the shell expects, without the
    traceback of whichever module was being read. A process that was told to ignore it (``nohup``) still does.
    """
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from sidecar import command_line  # noqa: PLC0415 - see above

    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command_line.main()


if __name__ == "__main__":
    main()
