"""Settings of the control listener."""

from pathlib import Path

from sidecar.settings_group import SettingsGroup


class ControlTls(SettingsGroup):
    """Mutual TLS of a `control_listen` on TCP: who may take rights away. A Unix socket needs none of this."""

    certificate: Path | None = None
    """The listener's certificate (PEM), with its chain."""
    key: Path | None = None
    """Its private key (PEM). A secret, given as a file only."""
    client_ca: Path | None = None
    """Certificates (PEM) that operators' certificates are checked against."""
    operators: tuple[str, ...] = ()
    """Subjects of the certificates that are operators', such as `organizationName=Example,commonName=ann`."""

    @property
    def complete(self) -> bool:
        """Whether everything is given."""
        return None not in (self.certificate, self.key, self.client_ca) and bool(self.operators)
