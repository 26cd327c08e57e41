// Runs once, when the database is first made: the two users that the sidecar's servers log in as, and the one of what
// replicas share. Their rights are the
// ceiling below every policy, so they name databases and actions one by one; no user here may drop, or manage users.
const { readFileSync } = require("fs");

const secret = (name) => readFileSync(`/run/secrets/${name}`, "utf8").trim();
const admin = db.getSiblingDB("admin");
const on = (database, ...actions) => ({ resource: { db: database, collection: "" }, actions });
const reads = ["sales", "staging", "hr", "support"].map((database) => ({ role: "read", db: database }));

admin.createRole({ role: "sidecarReader", privileges: [], roles: reads });
admin.createRole({
  role: "sidecarWriter",
  privileges: [on("staging", "insert"), on("support", "update")],
  roles: reads,
});

admin.createUser({ user: "sidecar-reader", pwd: secret("reader_password"), roles: ["sidecarReader"] });
admin.createUser({ user: "sidecar-writer", pwd: secret("writer_password"), roles: ["sidecarWriter"] });
// Of its own database and of no other; no MCP server's user has rights there.
admin.createUser({
  user: "sidecar-store",
  pwd: secret("store_password"),
  roles: [{ role: "readWrite", db: "mcp_sidecar" }],
});
