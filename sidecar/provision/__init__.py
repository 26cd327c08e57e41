"""Brings outside programs where there is no checkout: OPA, the MongoDB MCP server, what the demo runs on."""

from typing import TYPE_CHECKING

from sidecar.lazy_face import by_need

if TYPE_CHECKING:
    from sidecar.provision.bringing import Arrival, InstallPlace, bring
    from sidecar.provision.brought import programs_folder
    from sidecar.provision.parts import SERVING, OutsideProgram, server_version
else:
    __getattr__ = by_need(
        __name__,
        {
            "SERVING": "parts",
            "Arrival": "bringing",
            "InstallPlace": "bringing",
            "OutsideProgram": "parts",
            "bring": "bringing",
            "programs_folder": "brought",
            "server_version": "parts",
        },
    )

__all__ = ["SERVING", "Arrival", "InstallPlace", "OutsideProgram", "bring", "programs_folder", "server_version"]
