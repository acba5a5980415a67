"use strict";
// Runs mayfly. No shell is in between, so no input is ever code.

const { spawn } = require("node:child_process");

// What an earlier step may have set for all later ones does not decide whom mayfly trusts or who it is.
function environment() {
  const kept = Object.entries(process.env).filter(([name]) => !name.startsWith("MAYFLY_") && !name.startsWith("INPUT_"));
  return Object.fromEntries(kept);
}

// Runs to the end; returns the exit code and what it wrote to its output. Its errors go to the log: no secret is in them.
// `onStart` gets the child.
function run(program, args, onStart = () => {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { env: environment(), stdio: ["ignore", "pipe", "inherit"], windowsHide: true });
    const parts = [];
    child.stdout.on("data", (part) => parts.push(part));
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ code, signal, out: Buffer.concat(parts).toString("utf8") }));
    onStart(child);
  });
}

module.exports = { run };
