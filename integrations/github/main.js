"use strict";
// Opens the job's task and leaves a holder behind, which is there for all steps that follow.

const path = require("node:path");
const { randomUUID } = require("node:crypto");
const { append, fail, input } = require("./runner.js");
const { program } = require("./program.js");
const { run } = require("./run.js");

// Flags of `mayfly job start` with the input that each takes its value from.
const FLAGS = {
  "--server": "server",
  "--ca": "ca-file",
  "--server-name": "server-name",
  "--id-token-audience": "audience",
  "--job": "job",
  "--file": "file",
  "--tenant": "tenant",
  "--partner": "partner",
  "--purpose": "purpose",
  "--deadline": "deadline",
  "--wait": "wait",
};

// `--flag=value`, so that no value is taken for a flag.
function flags() {
  const given = Object.entries(FLAGS).filter(([, name]) => input(name));
  const credentials = input("credentials").split("\n").map((line) => line.trim()).filter(Boolean);
  return [
    ...given.map(([flag, name]) => `${flag}=${input(name)}`),
    ...credentials.map((credential) => `--credential=${credential}`),
  ];
}

// The roots as a file: they are no secret, but must not be another's.
function roots(folder) {
  if (!input("ca")) {
    return [];
  }
  const file = path.join(folder, `mayfly-ca-${randomUUID()}.pem`);
  require("node:fs").writeFileSync(file, `${input("ca")}\n`, { mode: 0o600, flag: "wx" });
  append("GITHUB_STATE", "roots", file);
  return [`--ca=${file}`];
}

// The runner's worker is our parent, but for a container that shows no process outside of it.
const runner = () => (process.ppid > 1 ? [`--runner-pid=${process.ppid}`] : []);

async function main() {
  if (!input("server")) {
    throw new Error("`server` is missing");
  }
  const temporary = process.env.RUNNER_TEMP || require("node:os").tmpdir();
  const mayfly = await program();
  const state = path.join(temporary, `mayfly-job-${randomUUID()}.json`);
  // Before anything is there that would have to be taken away.
  append("GITHUB_STATE", "program", mayfly);
  append("GITHUB_STATE", "state", state);
  const args = ["job", "start", "--output=json", `--state=${state}`, ...flags(), ...roots(temporary), ...runner()];
  args.push("--add-masks", `--env-file=${process.env.GITHUB_ENV}`, "--env-format=github");
  // Whoever ends us ends the start of the holder, and with it the holder.
  const onStart = (child) => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
      process.on(signal, () => child.kill("SIGTERM"));
    }
  };
  const { code, signal, out } = await run(mayfly, args, onStart);
  const lines = out.split("\n").filter(Boolean);
  // Masks before anything else is written.
  process.stdout.write(lines.filter((line) => line.startsWith("::add-mask::")).map((line) => `${line}\n`).join(""));
  if (code !== 0) {
    throw new Error(signal ? "cancelled before the job was held" : `mayfly job start ended with ${code}; see above`);
  }
  const job = JSON.parse(lines.at(-1));
  append("GITHUB_OUTPUT", "task-id", job.task_id);
  append("GITHUB_OUTPUT", "directory", job.directory ?? "");
  append("GITHUB_OUTPUT", "endpoint", job.endpoint ?? "");
  append("GITHUB_OUTPUT", "deadline", job.deadline ?? "");
  process.stdout.write(`task ${job.task_id} is held until this job ends, at the latest until ${job.deadline}\n`);
}

main().catch(fail);
