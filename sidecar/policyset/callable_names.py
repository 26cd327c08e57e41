"""The builtins that a team's rules may call: an allow-list, the same for folders, archives and a running OPA.

Beside these a team calls functions of its own and of ``data.mcp.lib``. What is not here is closed, so a builtin of a
later OPA is closed too. ``policies/capabilities.json`` has exactly these names (a test compares), and a
deployment's own list can only take from them: ``opa run`` has no such list, so for teams this one decides.

Every builtin of the pinned OPA has been judged. A name stands here if its result depends on nothing but its arguments
and has a size that theirs bound: at most their sum, or for ``replace`` and ``concat`` the product of two that exist.
That product can still be large; what holds it is OPA's limit of memory (``opa.memory_limit_mb``), not a list of names.
"""

from collections.abc import Mapping
from typing import Final

CALLABLE: Final = frozenset(
    {
        # What operators, keywords and templates of the language are, to the parser or to the compiler.
        *("assign", "eq", "equal", "neq", "gt", "gte", "lt", "lte", "plus", "minus", "mul", "div", "rem", "and", "or"),
        *("internal.member_2", "internal.member_3", "internal.template_string"),
        *("abs", "ceil", "floor", "round", "format_int", "to_number"),
        *("count", "max", "min", "product", "sort", "sum"),
        *("array.concat", "array.flatten", "array.reverse", "array.slice"),
        *("intersection", "union", "graph.reachable", "walk"),
        *("object.filter", "object.get", "object.keys", "object.remove", "object.subset"),
        *("object.union", "object.union_n"),
        *("concat", "contains", "endswith", "indexof", "indexof_n", "lower", "replace", "split", "sprintf"),
        *("startswith", "substring", "trim", "trim_left", "trim_prefix", "trim_right", "trim_space", "trim_suffix"),
        *("upper", "strings.any_prefix_match", "strings.any_suffix_match", "strings.count", "strings.replace_n"),
        *("strings.reverse", "strings.split_n"),
        # RE2 matches in time that is linear in the text, and a pattern that is too large does not compile.
        *("regex.find_all_string_submatch_n", "regex.find_n", "regex.is_valid", "regex.match", "regex.replace"),
        *("regex.split", "regex.template_match", "glob.match", "glob.quote_meta"),
        *("bits.and", "bits.negate", "bits.or", "bits.rsh", "bits.xor"),
        *("base64.decode", "base64.encode", "base64.is_valid", "hex.decode", "hex.encode"),
        *("base64url.decode", "base64url.encode", "base64url.encode_no_pad"),
        *("urlquery.decode", "urlquery.decode_object", "urlquery.encode", "urlquery.encode_object"),
        *("json.filter", "json.is_valid", "json.marshal", "json.patch", "json.remove", "json.unmarshal"),
        *("crypto.hmac.equal", "crypto.hmac.md5", "crypto.hmac.sha1", "crypto.hmac.sha256", "crypto.hmac.sha512"),
        *("crypto.md5", "crypto.sha1", "crypto.sha256"),
        *("is_array", "is_boolean", "is_null", "is_number", "is_object", "is_set", "is_string", "type_name"),
        *("semver.compare", "semver.is_valid", "units.parse", "units.parse_bytes", "uri.is_valid", "uri.parse"),
        "uuid.parse",
        # Of a time that is given; the clock is the question's ``context.time_ns``.
        *("time.add_date", "time.clock", "time.date", "time.diff", "time.format", "time.parse_duration_ns"),
        *("time.parse_ns", "time.parse_rfc3339_ns", "time.weekday"),
    }
)

_TOKENS: Final = "tokens, keys and certificates are the sidecar's to verify; it takes a clock and randomness"
_SCHEMAS: Final = 'a schema with {"$ref": "http://…"} is fetched, so that a question can be sent to any address'
_PARSERS: Final = "it parses a language that no question holds, with work that its arguments do not bound"
_ADDRESSES: Final = "no rule of a team judges addresses, and relatives of it look names up or list whole networks"
_DEPRECATED: Final = "Rego v1 has no deprecated builtins"
_POLICIES: Final = "it reads policies, which may be another's"
_LOGS: Final = "it writes to OPA's log what a question holds"
_NUMBER: Final = "it makes gigabytes out of a number, in one step that no deadline interrupts"

CLOSED: Final[Mapping[str, str]] = {
    "http.send": "it sends a question to any address",
    "net.lookup_ip_addr": "it sends what it looks up to a name server",
    "net.cidr_expand": "it makes sixteen million texts out of 10.0.0.0/8, in one step that no deadline interrupts",
    **dict.fromkeys(
        (
            *("net.cidr_contains", "net.cidr_contains_matches", "net.cidr_intersects", "net.cidr_is_valid"),
            *("net.cidr_merge", "net.cidr_overlap"),
        ),
        _ADDRESSES,
    ),
    **dict.fromkeys(("json.match_schema", "json.verify_schema"), _SCHEMAS),
    **dict.fromkeys(
        (
            *("graphql.is_valid", "graphql.parse", "graphql.parse_and_verify", "graphql.parse_query"),
            *("graphql.parse_schema", "graphql.schema_is_valid"),
        ),
        _PARSERS,
    ),
    **dict.fromkeys(
        (
            *("io.jwt.decode", "io.jwt.decode_verify", "io.jwt.encode_sign", "io.jwt.encode_sign_raw"),
            *("io.jwt.verify_eddsa", "io.jwt.verify_es256", "io.jwt.verify_es384", "io.jwt.verify_es512"),
            *("io.jwt.verify_hs256", "io.jwt.verify_hs384", "io.jwt.verify_hs512"),
            *("io.jwt.verify_ps256", "io.jwt.verify_ps384", "io.jwt.verify_ps512"),
            *("io.jwt.verify_rs256", "io.jwt.verify_rs384", "io.jwt.verify_rs512"),
            *("crypto.parse_private_keys", "crypto.x509.parse_and_verify_certificates"),
            *("crypto.x509.parse_and_verify_certificates_with_options", "crypto.x509.parse_certificate_request"),
            *("crypto.x509.parse_certificates", "crypto.x509.parse_keypair", "crypto.x509.parse_rsa_private_key"),
            "providers.aws.sign_req",
        ),
        _TOKENS,
    ),
    "opa.runtime": "it reads OPA's environment, where secrets may be",
    **dict.fromkeys(("rand.intn", "uuid.rfc4122"), "it answers the same question differently"),
    "time.now_ns": "the clock of a rule is the question's input.context.time_ns",
    **dict.fromkeys(("rego.metadata.chain", "rego.metadata.rule", "rego.parse_module"), _POLICIES),
    **dict.fromkeys(("print", "trace", "internal.print"), _LOGS),
    "internal.test_case": "it is what OPA makes of a test, and nothing to call",
    **dict.fromkeys(("numbers.range", "numbers.range_step", "bits.lsh"), _NUMBER),
    "strings.render_template": "a template has loops: {{range 3000000000}} takes gigabytes, and nothing interrupts it",
    "graph.reachable_paths": "44 nodes have four million paths: 2.2 GB and 51 s in one step (measured)",
    "regex.globs_match": "it tries two patterns against each other, with work that their sizes do not bound",
    **dict.fromkeys(
        ("yaml.marshal", "yaml.unmarshal", "yaml.is_valid"),
        "aliases make a value of it that is a thousand times its text (measured), and no question holds YAML",
    ),
    "json.marshal_with_options": "it puts a prefix of any length before each line; json.marshal is open",
    **dict.fromkeys(
        (
            *("all", "any", "cast_array", "cast_boolean", "cast_null", "cast_object", "cast_set", "cast_string"),
            *("re_match", "set_diff"),
        ),
        _DEPRECATED,
    ),
}
"""Why each of the others is not open: what an author is told."""


def why_closed(name: str) -> str:
    """Say why a name may not be called."""
    reason = CLOSED.get(name)
    if reason is not None:
        return f"{name} is not open to teams: {reason}"
    return f"{name} is not open to teams: use an open builtin, a function of the team's own, or one of data.mcp.lib"
