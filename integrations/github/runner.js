"use strict";
// The runner's file protocol and inputs, without any dependency: what is not here cannot be replaced in a registry.

const fs = require("node:fs");
const { randomUUID } = require("node:crypto");

// An input as action.yml names it, without the blanks around it.
function input(name) {
  const value = process.env[`INPUT_${name.replace(/ /g, "_").toUpperCase()}`];
  return (value ?? "").trim();
}

// Appends `name` to one of the runner's files. The delimiter is random and stands in no value, so that no value can
// begin another name.
function append(variable, name, value) {
  const file = process.env[variable];
  if (!file) {
    throw new Error(`${variable} is not set: this runs under GitHub's runner only`);
  }
  const delimiter = `mayfly-${randomUUID()}`;
  if (`${name}\n${value}`.includes(delimiter) || /[\r\n=<]/.test(name)) {
    throw new Error(`${name} cannot be written to ${variable}`);
  }
  fs.appendFileSync(file, `${name}<<${delimiter}\n${value}\n${delimiter}\n`);
}

// An error for the log's reader. It is one command: no line of the message is another.
function fail(error) {
  const text = String(error?.message ?? error);
  const data = text.replace(/%/g, "%25").replace(/\r/g, "%0D").replace(/\n/g, "%0A");
  process.stdout.write(`::error title=mayfly::${data}\n`);
  process.exitCode = 1;
}

module.exports = { append, fail, input };
