"""Where an OPA listens."""

from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from sidecar.addresses import is_loopback
from sidecar.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where OPA listens, parsed once."""

    base: str
    """Scheme, host and port of the request line; a fixed name for a Unix socket."""
    socket: str | None = None
    """Path of the Unix socket, or None for TCP."""
    tls: bool = False
    loopback: bool = False

    @classmethod
    def parse(cls, url: str) -> "Endpoint":
        """Read ``http://host:port``, ``https://host:port`` or ``unix:///absolute/path``.

        Raises:
            ConfigurationError: any other form. A path, query or user in the URL would be silently unused.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigurationError(f"opa.url is not a URL: {error}") from error
        match parts.scheme:
            case "unix" if not parts.netloc and parts.path.startswith("/") and not (parts.query or parts.fragment):
                return cls(base="http://opa", socket=parts.path, loopback=True)
            case "http" | "https" if _is_origin(parts):
                host = parts.hostname or ""
                name = f"[{host}]" if ":" in host else host
                base = f"{parts.scheme}://{name}" + (f":{port}" if port is not None else "")
                return cls(base=base, tls=parts.scheme == "https", loopback=is_loopback(host))
            case _:
                raise ConfigurationError("opa.url must be http(s)://host:port or unix:///absolute/path")


def _is_origin(parts: SplitResult) -> bool:
    """Whether the URL names a host and port and nothing else."""
    rest = (parts.query, parts.fragment, parts.username, parts.password)
    return bool(parts.hostname) and parts.path in {"", "/"} and not any(rest)
