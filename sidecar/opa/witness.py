"""The self-test of an external OPA: who answered it, and whether it was passed."""

from typing import Final

from sidecar.errors import ConfigurationError, DecisionUnavailable
from sidecar.model import JsonObject
from sidecar.opa.client import OpaClient
from sidecar.opa.self_test import self_test
from sidecar.ports import PdpAnswer, Question

_SELF_TESTS: Final = 3
"""The first question to a new set pays for what OPA prepares lazily, which can exceed the deadline of one."""


class Witness:
    """Asks, and keeps which sets and which OPAs have answered."""

    def __init__(self, client: OpaClient) -> None:
        self._client = client
        self.revisions: set[str] = set()
        self.engines: set[str] = set()

    async def ask(self, question: Question, document: JsonObject) -> PdpAnswer:
        """Ask the OPA behind the client.

        Raises:
            DecisionUnavailable: as for ``OpaClient.ask``.
        """
        answer = await self._client.ask(question, document)
        self.revisions.add(answer.revision)
        self.engines.add(answer.engine)
        return answer


async def self_tested(pdp: Witness) -> ConfigurationError | DecisionUnavailable | None:
    """Take the self-test; an answer that is wrong is final, one that is late is asked for again."""
    failure: ConfigurationError | DecisionUnavailable | None = None
    for _ in range(_SELF_TESTS):
        try:
            await self_test(pdp)
        except ConfigurationError as error:
            return error
        except DecisionUnavailable as error:
            failure = error
        else:
            return None
    return failure
