"use strict";
// Finds the mayfly program: one that is there, or one that is downloaded. What is downloaded runs only when its digest
// is the one that this action's own digests.json says; there is no way around it.

const fs = require("node:fs");
const https = require("node:https");
const path = require("node:path");
const { createHash } = require("node:crypto");
const { input } = require("./runner.js");

const LARGEST = 64 * 1024 * 1024;
const REDIRECTS = 5;
const SILENCE = 30_000;

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

async function program() {
  const given = input("path");
  const version = input("version");
  if (given && version) {
    throw new Error("`path` and `version` exclude each other");
  }
  if (given) {
    return there(path.resolve(given));
  }
  if (!version) {
    throw new Error("`version` or `path` is missing: which mayfly is to be used?");
  }
  return downloaded(version);
}

function there(file) {
  const digest = input("sha256").toLowerCase();
  if (digest && sha256(fs.readFileSync(file)) !== digest) {
    throw new Error(`${file} does not have the digest that \`sha256\` says`);
  }
  fs.accessSync(file, fs.constants.X_OK);
  return file;
}

async function downloaded(version) {
  const known = JSON.parse(fs.readFileSync(path.join(__dirname, "digests.json"), "utf8"));
  const platform = `${process.platform}-${process.arch}`;
  const entry = Object.hasOwn(known, version) ? known[version][platform] : undefined;
  if (!entry || !/^[0-9a-f]{64}$/.test(entry.sha256 ?? "")) {
    throw new Error(`digests.json has no digest for mayfly ${version} on ${platform}: nothing is downloaded without one`);
  }
  const bytes = await get(entry.url, REDIRECTS);
  const found = sha256(bytes);
  if (found !== entry.sha256) {
    throw new Error(`${entry.url} has the digest ${found} and not ${entry.sha256}: it is not run`);
  }
  const folder = fs.mkdtempSync(path.join(process.env.RUNNER_TEMP || require("node:os").tmpdir(), "mayfly-"));
  const file = path.join(folder, "mayfly");
  fs.writeFileSync(file, bytes, { mode: 0o700, flag: "wx" });
  return file;
}

function get(address, redirects) {
  return new Promise((resolve, reject) => {
    const url = new URL(address);
    if (url.protocol !== "https:") {
      reject(new Error(`${address} is not https`));
      return;
    }
    const request = https.get(url, { headers: { "user-agent": "mayfly-action" } }, (reply) => {
      const { statusCode, headers } = reply;
      if (statusCode >= 300 && statusCode < 400 && headers.location) {
        reply.resume();
        if (redirects === 0) {
          reject(new Error(`${address} leads on too often`));
        } else {
          resolve(get(new URL(headers.location, url).href, redirects - 1));
        }
        return;
      }
      if (statusCode !== 200) {
        reply.resume();
        reject(new Error(`${address} answers ${statusCode}`));
        return;
      }
      const parts = [];
      let length = 0;
      reply.on("data", (part) => {
        length += part.length;
        if (length > LARGEST) {
          request.destroy(new Error(`${address} has more than ${LARGEST} bytes`));
        }
        parts.push(part);
      });
      reply.on("end", () => resolve(Buffer.concat(parts)));
      reply.on("error", reject);
    });
    request.setTimeout(SILENCE, () => request.destroy(new Error(`${address} does not answer`)));
    request.on("error", reject);
  });
}

module.exports = { program };
