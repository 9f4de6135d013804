// Submits one strategy and waits for its result: Node.js, without a package.
import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { setTimeout } from "node:timers/promises";

const PATIENCE_MS = 60_000;
const url = process.env.STRATBOX_REDIS_URL ?? "redis://127.0.0.1:6379/0";
// In the place of a client for Redis, so that this runs as it stands.
const redis = (words, input) => execFileSync("redis-cli", ["-e", "-u", url, ...words], { input, encoding: "utf8" });

const id = randomUUID();
const fields = { code: "print('grüße')", data: { close: [101.2, 100.4] }, timeout: 10, user_id: "alice" };
const message = {
  body: JSON.stringify([[], fields, {}]),
  headers: { task: "STRATEGY_EXECUTION", id, stratbox_submitted_at: Date.now() / 1000 },
};
redis(["-x", "LPUSH", "celery"], JSON.stringify(message));

const deadline = Date.now() + PATIENCE_MS;
let record = null;
while (!["SUCCESS", "FAILURE", "REVOKED"].includes(record?.status) && Date.now() < deadline) {
  await setTimeout(100);
  record = JSON.parse(redis(["GET", `celery-task-meta-${id}`]).trim() || "null");
}
console.log(record?.status, record?.result?.status, record?.result?.output); // prints SUCCESS succeeded grüße
