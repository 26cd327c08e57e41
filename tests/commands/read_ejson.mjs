// What the MongoDB MCP server makes of Extended JSON: its own reader and serializer, one JSON value a line.
// Run as: node read_ejson.mjs <folder that holds node_modules>
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(`${process.argv[2]}/node_modules/@mongodb-js/mcp-tools-mongodb/package.json`);
const { EJSON, serialize } = require("bson");

for await (const line of createInterface({ input: process.stdin })) {
    let answer;
    try {
        const read = EJSON.deserialize({ v: JSON.parse(line) }, { relaxed: false });
        answer = { bytes: Buffer.from(serialize(read)).toString("hex") };
    } catch (error) {
        answer = { error: String(error.message).slice(0, 100) };
    }
    console.log(JSON.stringify(answer));
}
