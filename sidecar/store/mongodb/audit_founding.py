"""``mcp-sidecar audit init``: the collections of the evidence, made by another user than the one that writes."""

from collections.abc import Mapping
from typing import Any, Final

from bson.errors import BSONError
from pymongo.errors import CollectionInvalid, OperationFailure, PyMongoError

from sidecar.errors import ConfigurationError
from sidecar.store.mongodb.audit_documents import CHECKPOINT_INDEXES, CHECKPOINTS, INDEXES, VALIDATOR
from sidecar.store.mongodb.connection import MongoStore

_EXISTS: Final = 48


async def found_evidence(store: MongoStore, collection: str) -> tuple[str, ...]:
    """Make both collections with validator and indexes, or bring them to that; return what is there then.

    Raises:
        ConfigurationError: the database does not answer, or does not allow it.
    """
    records, heads = store.collection(collection), store.collection(collection + CHECKPOINTS)
    try:
        for each, validator in ((records, VALIDATOR), (heads, {})):
            try:
                await each.database.create_collection(each.name, check_exists=False)
            except CollectionInvalid:
                pass
            except OperationFailure as error:
                if error.code != _EXISTS:
                    raise
            if validator:
                await each.database.command(
                    {
                        "collMod": each.name,
                        "validator": validator,
                        "validationLevel": "strict",
                        "validationAction": "error",
                    }
                )
        names = await records.create_indexes(list(INDEXES))
        names += await heads.create_indexes(list(CHECKPOINT_INDEXES))
        found = await records.database.command({"listCollections": 1, "filter": {"name": records.name}})
    except (PyMongoError, BSONError, OSError) as error:
        why = error.details.get("errmsg", "") if isinstance(error, OperationFailure) and error.details else ""
        raise ConfigurationError(f"the collections cannot be made: {type(error).__name__} {why}".rstrip()) from None
    [made] = found["cursor"]["firstBatch"]
    if "validator" not in made.get("options", {}):
        raise ConfigurationError("the database did not take the validator")
    return tuple(names)


def role_of_writer(database: str, collection: str) -> Mapping[str, Any]:
    """Return the command that makes the role with which a sidecar writes evidence, and no more."""
    actions = ["find", "insert"]
    return {
        "createRole": f"{database}_{collection}_writer",
        "privileges": [
            {"resource": {"db": database, "collection": name}, "actions": actions}
            for name in (collection, collection + CHECKPOINTS)
        ],
        "roles": [],
    }
