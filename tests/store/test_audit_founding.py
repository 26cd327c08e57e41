"""`mcp-sidecar audit init`, the role that it prints, and what the sidecar's own user cannot do with the evidence."""

import asyncio
import json
from datetime import timedelta

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from sidecar.audit import CheckpointSigner, CheckpointVerifier, HeldAgainst
from sidecar.command_line import cli
from sidecar.errors import AuditUnavailable, ConfigurationError
from sidecar.store import MongoStore
from sidecar.store.mongodb.audit_rights import rights_on
from sidecar.store.mongodb.audit_sink import MongoAuditSink
from tests.asking.test_configured_store import SETTINGS
from tests.doctor.conftest import Access, running
from tests.patience import HANG_S
from tests.store.audit_world import AuditWorld, intent, started_and_closed
from tests.store.unsteady_way import UnsteadyWay


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A database with access control, and its administrator."""
    folder = tmp_path_factory.mktemp("database")
    with running(folder) as address, MongoClient[dict[str, object]](f"mongodb://{address}/") as client:
        client.admin.command({"createUser": "operator", "pwd": "secret", "roles": [{"role": "root", "db": "admin"}]})
    with running(folder, "--auth") as address:
        yield Access(address=address)


@pytest.fixture
def configured(guarded, tmp_path, monkeypatch):
    """Settings of a sidecar with a mongodb: store, and the file of the founder's connection string."""
    name = f"audit_{tmp_path.name[-12:]}".replace("-", "_")
    secret = tmp_path / "operator_uri"
    secret.write_text(guarded.uri("operator"))
    file = tmp_path / "sidecar.toml"
    file.write_text(
        SETTINGS.replace('"file:{path}"', f'"mongodb:{name}"\ninstance = "one"')
        + f'[mongodb]\nuri_file = "{secret}"\ndatabase = "evidence_tests"\n'
    )
    monkeypatch.setenv("SIDECAR_CONFIG", str(file))
    return name, secret


def init(secret):
    return CliRunner().invoke(cli, ["audit", "init", "--uri-file", str(secret)], prog_name="mcp-sidecar")


@pytest.fixture
def own_uri(guarded, configured):
    """The user with the role that init prints."""
    name = "writer_enough"
    done = init(configured[1])
    assert done.exit_code == 0, done.output
    role = json.JSONDecoder().decode(done.stdout.partition("runCommand(")[2].rstrip().removesuffix(")"))
    with MongoClient[dict[str, object]](guarded.uri("operator")) as client:
        client.admin.command({**role, "createRole": name})
    return guarded.make(name, [{"role": name, "db": "admin"}])


async def sink_of(world: AuditWorld, store: MongoStore, **given) -> MongoAuditSink:
    sink = world.sink(store, **given)
    await sink.start()
    return sink


@pytest.fixture
def world(guarded, configured, tmp_path):
    world = AuditWorld(guarded.uri("operator"), tmp_path)
    world.collection = configured[0]
    return world


async def test_the_role_of_init_is_enough_and_gives_no_more(own_uri, world):
    async with world.store(own_uri) as store:
        sink = await sink_of(world, store)
        await sink.append(intent())
        assert sink.ready
        await sink.close()
        records = store.collection(world.collection)
        assert (await rights_on(records)).too_many == frozenset()
        for change in (
            records.delete_many({}),
            records.update_many({}, {"$set": {"tool": "x"}}),
            records.replace_one({}, {"x": 1}),
            records.find_one_and_delete({}),
            records.find_one_and_update({}, {"$unset": {"hash": 1}}),
            records.drop(),
            records.drop_indexes(),
            records.rename("elsewhere"),
            records.create_index("tool"),
            records.database.command({"collMod": records.name, "validator": {}}),
            records.database.client.drop_database(records.database.name),
            records.aggregate([{"$out": records.name}]),
            records.aggregate([{"$merge": {"into": records.name, "whenMatched": "replace"}}]),
        ):
            with pytest.raises(OperationFailure) as refused:
                await change
            assert refused.value.code == 13
    assert len(await world.stored()) == 1


@pytest.mark.parametrize("role", ["readWrite", "dbOwner"])
async def test_a_user_who_may_change_evidence_ends_the_start(guarded, configured, world, role):
    uri = guarded.make(f"user_{role}", [{"role": role, "db": "evidence_tests"}])
    async with world.store(uri) as store:
        sink = world.sink(store)
        with pytest.raises(ConfigurationError, match=r"user_.*(remove, update)"):
            await started_and_closed(sink)
        with pytest.raises(AuditUnavailable):
            await sink.append(intent())


def test_init_makes_validator_and_indexes_and_can_be_repeated(guarded, configured):
    name, secret = configured
    assert [init(secret).exit_code for _ in range(2)] == [0, 0]
    with MongoClient[dict[str, object]](guarded.uri("operator")) as client:
        records = client.evidence_tests[name]
        indexes = list(records.list_indexes())
        assert [dict(one["key"]) for one in indexes if one.get("unique")] == [{"instance": 1, "seq": 1}]
        assert [one["key"] for one in indexes if "expireAfterSeconds" in one] == [{"expires": 1}]
        documents: list[dict[str, object]] = [{"x": 1}, {"_id": "one:1", "instance": "one", "seq": 1}]
        for document in documents:
            with pytest.raises(OperationFailure) as refused:
                records.insert_one(document)
            assert refused.value.code == 121


@pytest.mark.parametrize("text", ["nonsense", "mongodb://other.example/", "mongodb://nobody:secret@{address}/"])
def test_a_founder_who_is_none_is_told_so_and_not_what_was_given(guarded, configured, text):
    configured[1].write_text(text.format(address=guarded.address))
    done = init(configured[1])
    assert done.exit_code == 78
    assert "secret" not in done.output


def test_init_takes_its_connection_from_a_variable_too_and_from_nothing_else(guarded, configured, monkeypatch):
    done = CliRunner().invoke(cli, ["audit", "init"], prog_name="mcp-sidecar")
    assert (done.exit_code, "MCP_SIDECAR_INIT_URI" in done.stderr) == (78, True)
    monkeypatch.setenv("MCP_SIDECAR_INIT_URI", guarded.uri("operator"))
    assert CliRunner().invoke(cli, ["audit", "init"]).exit_code == 0
    assert CliRunner().invoke(cli, ["audit", "init", guarded.uri("operator")]).exit_code == 2


def test_every_command_asks_the_store_of_the_settings(guarded, configured, world):
    async def write() -> None:
        async with world.store() as store, world.store() as other:
            for instance, each in (("one", store), ("two", other)):
                sink = world.sink(each, instance=instance)
                sink._chain._seen = True  # the administrator writes here
                await sink.start()
                await sink.append(intent(user=f"user-{instance}"))
                await sink.append(intent())
                await sink.close()

    assert init(configured[1]).exit_code == 0
    asyncio.run(write())
    runner = CliRunner()
    for words in (
        ["query", "--json", "--user", "user-one"],
        ["tail", "--json", "--instance", "one", "--user", "user-one"],
        ["export", "--user", "user-one"],
    ):
        done = runner.invoke(cli, ["audit", *words])
        assert done.exit_code == 0, done.output
        assert [("user-one" in line, "user-two" in line) for line in done.stdout.splitlines()] == [(True, False)]
    done = runner.invoke(cli, ["audit", "verify", "--json"])
    assert done.exit_code == 0, done.output
    assert [json.JSONDecoder().decode(line)["records"] for line in done.stdout.splitlines()] == [2, 2]
    done = runner.invoke(cli, ["audit", "report", "--since", "1d", "--json"])
    assert json.JSONDecoder().decode(done.stdout)["allowed"] == 4
    assert runner.invoke(cli, ["trace", "--last", "--json"]).exit_code == 0
    with MongoClient[dict[str, object]](guarded.uri("operator")) as client:
        client.evidence_tests[world.collection].update_one(
            {"_id": "two:1"}, {"$set": {"tool": "count"}}, bypass_document_validation=True
        )
    done = runner.invoke(cli, ["audit", "verify", "--instance", "two"])
    assert done.exit_code == 1
    assert "the hash does not match the record" in done.stdout
    assert runner.invoke(cli, ["audit", "verify", "--instance", "one"]).exit_code == 0


# --- records that end -------------------------------------------------------------------------------------------------


def keys() -> tuple[CheckpointSigner, CheckpointVerifier]:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return CheckpointSigner(private), CheckpointVerifier(public)


async def written_to_end(world: AuditWorld, signer: CheckpointSigner) -> None:
    """Three starts with two records each, which may end after a day."""
    for _ in range(3):
        async with world.store() as store:
            sink = world.sink(store, signer=signer, keep=timedelta(days=1))
            sink._chain._seen = True  # the administrator writes here
            await sink.start()
            await sink.append(intent())
            await sink.append(intent())
            await sink.close()


async def test_records_end_only_behind_a_signed_head_from_which_verification_starts(guarded, configured, world):
    signer, verifier = keys()
    await written_to_end(world, signer)
    day = timedelta(days=1)
    async with world.store() as store:
        records = store.collection(world.collection)
        ends = [one.get("expires") async for one in records.find().sort("seq", 1)]
        assert all(ends)
        reader = world.reader(store, keep=day)
        signed = HeldAgainst(verifier=verifier)
        [report] = await reader.verify(signed)
        assert (report.holds, report.first) == (True, 1)
        await records.delete_many({"seq": {"$lte": 3}})  # as the database does when their time has come
        [report] = await reader.verify(HeldAgainst())
        assert not report.holds, "without the key, nothing says that those before may be missing"
        [report] = await world.reader(store, keep=timedelta(microseconds=1)).verify(signed)
        assert (report.holds, report.first, report.records) == (True, 4, 3), report.findings
        [report] = await reader.verify(signed)
        assert [each.what for each in report.findings] == ["records up to 2 are missing before their time"]
        other = HeldAgainst(verifier=keys()[1])
        [report] = await reader.verify(other)
        assert not report.holds
        await records.delete_many({"seq": 6})
        [report] = await reader.verify(signed)
        assert any("cut off" in each.what for each in report.findings)


async def test_a_chain_never_ends_in_its_middle(configured, world):
    signer, _ = keys()
    await written_to_end(world, signer)
    async with world.store() as store:
        for keep, goes_on in (
            (timedelta(hours=1), False),
            (timedelta(days=2), True),
            (timedelta(days=1), False),
            (None, True),
            (timedelta(days=9), False),
        ):
            sink = world.sink(store, signer=signer, keep=keep)
            sink._chain._seen = True  # the administrator writes here
            if goes_on:
                await sink.start()
                await sink.append(intent())
                await sink.close()
            else:
                with pytest.raises(ConfigurationError, match="keep_days"):
                    await started_and_closed(sink)
    assert len(await world.stored()) == 8


async def test_records_that_end_need_a_head_before_them(configured, world, database):
    way = UnsteadyWay(database)
    await way.appear()
    way.closed_to = b"checkpoint"
    async with world.store(way.uri, 0.5) as store:
        sink = world.sink(store, signer=keys()[0], keep=timedelta(days=1))
        await sink.start()
        with pytest.raises(AuditUnavailable):
            await sink.append(intent())
        await sink.close()
    await way.vanish()


async def test_a_chain_of_which_everything_has_ended_goes_on_with_the_next_number(configured, world):
    signer, verifier = keys()
    await written_to_end(world, signer)
    async with world.store() as store:
        await store.collection(world.collection).delete_many({})
        keep = timedelta(days=1)
        sink = world.sink(store, signer=signer, keep=keep)
        sink._chain._seen = True  # the administrator writes here
        await sink.start()
        await sink.look()
        receipt = await sink.append(intent())
        await sink.look()
        assert (receipt.seq, sink.ready) == (7, True)
        await sink.close()
        reader = world.reader(store, keep=timedelta(microseconds=1))
        [report] = await reader.verify(HeldAgainst(verifier=verifier))
        assert (report.holds, report.first, report.records) == (True, 7, 1), report.findings
        [report] = await reader.verify(HeldAgainst())
        assert not report.holds


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_the_database_removes_what_has_ended_and_what_is_left_is_proven(guarded, configured, world):
    signer, verifier = keys()
    assert init(configured[1]).exit_code == 0

    async def played() -> None:
        async with world.store() as store:
            for keep in (timedelta(milliseconds=1), timedelta(days=1)):
                sink = world.sink(store, signer=signer, keep=keep)
                sink._chain._seen = True  # the administrator writes here
                await sink.start()
                await sink.append(intent())
                await sink.append(intent())
                await sink.close()
            records = store.collection(world.collection)
            async with asyncio.timeout(HANG_S):
                while await records.count_documents({}) > 2:  # noqa: ASYNC110 - the database does it by itself
                    await asyncio.sleep(1)
            reader = world.reader(store, keep=timedelta(milliseconds=1))
            [report] = await reader.verify(HeldAgainst(verifier=verifier))
            assert (report.holds, report.first, report.records) == (True, 3, 2), report.findings

    asyncio.run(played())


def test_keeping_for_days_needs_a_key_and_a_spool_needs_the_store(configured, monkeypatch):
    for name, value, word in (
        ("SIDECAR_AUDIT__KEEP_DAYS", "30", "signing_key_file"),
        ("SIDECAR_AUDIT__STORE", "mongodb://user:secret@db/x", "mongodb.uri_file"),
        ("SIDECAR_AUDIT__INSTANCE", "a b", "audit.instance"),
    ):
        with monkeypatch.context() as set_:
            set_.setenv(name, value)
            done = CliRunner().invoke(cli, ["audit", "verify"], prog_name="mcp-sidecar")
            assert (done.exit_code, word in done.stderr) == (78, True), done.output
            assert "secret@" not in done.output
