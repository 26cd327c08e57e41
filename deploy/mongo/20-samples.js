// Runs once after 10-users.js: a few documents to ask about.
const samples = {
  "sales.orders": Array.from({ length: 12 }, (_, number) => ({
    _id: number,
    region: ["EU", "US", "APAC"][number % 3],
    status: ["open", "paid", "shipped"][number % 3],
    customer: number % 4,
    total: 25 + 7.5 * number,
  })),
  "sales.customers": ["Ada", "Boole", "Curie", "Dijkstra"].map((name, number) => ({ _id: number, name })),
  "staging.orders": [0, 1].map((number) => ({ _id: number, region: "EU", status: "open", customer: number, total: 12.5 })),
  "hr.salaries": [0, 1, 2, 3].map((number) => ({ _id: number, employee: `e${number}`, salary: 50000 + 5000 * number })),
  "support.tickets": [["where is my order", "Ada"], ["refund", "Curie"]].map(([subject, name], number) => ({
    _id: number + 1,
    subject,
    customer: { name, email: `${name.toLowerCase()}@example.org`, phone: "555-0100", address: "Main St 1" },
  })),
};

for (const [namespace, documents] of Object.entries(samples)) {
  const [database, collection] = namespace.split(".");
  db.getSiblingDB(database).getCollection(collection).insertMany(documents);
}
