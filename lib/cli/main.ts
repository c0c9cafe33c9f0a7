#!/usr/bin/env node
// The `torchformers` command. A command's file is imported when it is the one that runs, so that `--help` loads nothing.
//
// Exit codes: 0, 1 (an error, told without a stack unless TORCHFORMERS_LOG=debug), 2 (usage), 130 (interrupted).

import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { complain, EXIT } from "./support.ts";

interface CommandModule {
  /** Adds arguments, options, examples and the action. */
  define(command: Command): void;
}

interface CommandEntry {
  readonly name: string;
  readonly summary: string;
  load(): Promise<CommandModule>;
}

/** To add a command: a file that exports `define`, and a line here. */
const COMMANDS: readonly CommandEntry[] = [
  {
    name: "setup",
    summary: "get libtorch, the library that does the tensor work",
    load: () => import("./setup.ts"),
  },
  { name: "generate", summary: "stream a continuation of a prompt", load: () => import("./generate.ts") },
  { name: "chat", summary: "talk with a model", load: () => import("./chat.ts") },
  {
    name: "estimate",
    summary: "say where a model would lie and how fast it would be, before any weight is read",
    load: () => import("./estimate.ts"),
  },
  {
    name: "convert",
    summary: "make safetensors of a checkpoint that is a pickle (.bin, .pt)",
    load: () => import("./convert.ts"),
  },
  {
    name: "eject",
    summary: "copy a model out of the package, to be changed",
    load: () => import("./eject.ts"),
  },
  { name: "init", summary: "begin a package with a model of your own", load: () => import("./init.ts") },
  { name: "repl", summary: "open Node's REPL with torch, nn and a model", load: () => import("./repl.ts") },
  {
    name: "download",
    summary: "bring a repository of the hub, or some of its files",
    load: () => import("./download.ts"),
  },
  {
    name: "inspect",
    summary: "list the code, native code and pickles of a model before you trust it",
    load: () => import("./inspect.ts"),
  },
  { name: "upload", summary: "send a folder to the hub", load: () => import("./upload.ts") },
  {
    name: "cache",
    summary: "list, check and clear what was downloaded",
    load: () => import("./cache.ts"),
  },
  { name: "login", summary: "keep a token of the hub on this machine", load: () => import("./login.ts") },
  { name: "logout", summary: "forget the token of the hub", load: () => import("./logout.ts") },
  { name: "whoami", summary: "tell whose token is used", load: () => import("./whoami.ts") },
  {
    name: "env",
    summary: "print versions, devices and settings, for a bug report",
    load: () => import("./env.ts"),
  },
  {
    name: "doctor",
    summary: "find out why something does not load, and what to do",
    load: () => import("./doctor.ts"),
  },
];

const EXAMPLES = `
Examples:
  $ npx torchformers setup                 get libtorch for the CPU (a download of 540 MB)
  $ npx torchformers setup --flavour cu130 with CUDA 13.0
  $ npx torchformers download org/name     bring a model of the hub
  $ npx torchformers doctor                see what was found, and what was tried
  $ npx torchformers help setup            a command's options`;

async function build(argv: readonly string[]): Promise<Command> {
  const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
    version: string;
  };
  const program = new Command("torchformers")
    .description("Hugging Face transformers for Node.js, on libtorch.")
    .version(version, "-V, --version", "print the version")
    .helpOption("-h, --help", "print this text")
    .helpCommand("help [command]", "print a command's help")
    .addHelpText("after", EXAMPLES)
    .showSuggestionAfterError();

  const words = argv.filter((word) => !word.startsWith("-"));
  const chosen = words[0] === "help" ? words[1] : words[0];
  for (const { name, summary, load } of COMMANDS) {
    const command = program
      .command(name)
      .summary(summary)
      .description(`${summary[0]?.toUpperCase()}${summary.slice(1)}.`);
    command
      .helpOption("-h, --help", "print this text")
      .showHelpAfterError(`(torchformers help ${name} lists the options)`);
    if (name === chosen) (await load()).define(command);
  }
  // Inherited by the commands only when set before they are made; so it is set on all of them here.
  for (const command of [program, ...program.commands]) command.exitOverride();
  return program;
}

async function main(argv: readonly string[]): Promise<number> {
  const program = await build(argv);
  if (argv.length === 0) {
    program.outputHelp({ error: true });
    return EXIT.usage;
  }
  try {
    await program.parseAsync(argv as string[], { from: "user" });
    return typeof process.exitCode === "number" ? process.exitCode : EXIT.ok;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    return complain(error);
  }
}

// A reader that has seen enough (`| head`) is no error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(EXIT.ok);
  throw error;
});
process.exitCode = await main(process.argv.slice(2));
