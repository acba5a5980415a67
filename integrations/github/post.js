"use strict";
// Completes the job's task: after success, failure and cancellation.

const fs = require("node:fs");
const { fail } = require("./runner.js");
const { run } = require("./run.js");

// What main.js left for us in GITHUB_STATE.
const left = (name) => process.env[`STATE_${name}`] ?? "";

async function post() {
  if (!left("state")) {
    return; // Nothing was begun.
  }
  // A cancelled job has a few seconds, which is enough: who hurries us does not stop us.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    process.on(signal, () => {});
  }
  const { code, out } = await run(left("program"), ["job", "finish", "--output=json", `--state=${left("state")}`]);
  if (left("roots")) {
    fs.rmSync(left("roots"), { force: true });
  }
  if (code !== 0) {
    throw new Error(`mayfly job finish ended with ${code}; see above. The task ends by itself`);
  }
  if (out.trim()) {
    process.stdout.write(`task ${JSON.parse(out).task_id} is over\n`);
  }
}

post().catch(fail);
