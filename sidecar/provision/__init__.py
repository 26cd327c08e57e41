"""Brings outside programs where there is no checkout: OPA, the MongoDB MCP server, what the demo runs on."""

from sidecar.provision.bringing import Arrival, InstallPlace, bring, programs_folder
from sidecar.provision.parts import SERVING, OutsideProgram, server_version

__all__ = ["SERVING", "Arrival", "InstallPlace", "OutsideProgram", "bring", "programs_folder", "server_version"]
